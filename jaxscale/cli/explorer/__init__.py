"""The interactive mode behind `jaxscale explore`: moves on a layout, what each does, and the screen."""

"""The Python API: one call for each verb of the command line. `jaxscale` offers its names, loaded when first used."""

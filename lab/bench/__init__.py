"""The benchmark: the table of speeds that the product promises, measured on this machine. `python -m lab.bench`."""

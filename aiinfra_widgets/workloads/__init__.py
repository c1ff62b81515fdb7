"""Nets and data that several experiments use: `catalog` knows them without loading anything, `nets.load` loads one."""

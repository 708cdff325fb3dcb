import numpy
from moa.compiler import compile

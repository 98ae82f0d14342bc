// The loop that Python hands over once (library.py), and the function that takes it.

#include "machine.h"

Loop loop = nullptr;

extern "C" void take_loop(Loop given) { loop = given; }

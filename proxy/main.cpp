// The command line: `holdfast COMMAND`. Each group of commands has a file of its own.
#include "proxy/cli.h"

int main(int argc, char** argv) { return holdfast::proxy::run_command_line(argc, argv); }

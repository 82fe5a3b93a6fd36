/* wgctl: what it understands is in table.c, what it does in cmd_*.c. */
#include "wgctl/cli.h"

int main(int argc, char **argv)
{
	return cli_main(argc, argv);
}

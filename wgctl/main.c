/* wgctl: what it understands is in table.c, what it does in cmd_*.c. */
#include "lib/user.h"
#include "wgctl/cli.h"

int main(int argc, char **argv)
{
	user_hide_memory(); /* an auth key may be waited with for long */
	return cli_main(argc, argv);
}

# bash completion for wgctl, made by `wgctl completion bash`
# shellcheck shell=bash
_wgctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} path='' word skip='' words flags peers
	local -a before=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
	COMPREPLY=()
	for word in "${before[@]}"; do
		# bash cuts --flag=value into three words
		if [[ $word == '=' ]]; then
			skip=yes
			continue
		fi
		if [[ -n $skip ]]; then
			skip=''
			continue
		fi
		case $path:$word in
		*:--socket|*:--color|'up:--login-server'|'up:--auth-key'|'up:--hostname'|'up:--timeout'|'ping:-c'|'ping:--timeout'|'ping:--interval'|'ip:--assert'|'netcheck:--format'|'wait:--timeout'|'admin:--admin-socket'|'admin '*:--admin-socket|'admin:--output'|'admin '*:--output|'admin:-o'|'admin '*:-o|'admin:--user'|'admin '*:--user|'admin:-u'|'admin '*:-u|'admin users create:--display-name'|'admin users create:-d'|'admin users create:--email'|'admin users create:-e'|'admin users create:--picture-url'|'admin users create:-p'|'admin users list:--identifier'|'admin users list:-i'|'admin users list:--name'|'admin users list:-n'|'admin users list:--email'|'admin users list:-e'|'admin users destroy:--identifier'|'admin users destroy:-i'|'admin users destroy:--name'|'admin users destroy:-n'|'admin users rename:--identifier'|'admin users rename:-i'|'admin users rename:--name'|'admin users rename:-n'|'admin users rename:--new-name'|'admin users rename:-r'|'admin preauthkeys create:--expiration'|'admin preauthkeys create:-e'|'admin preauthkeys create:--tags'|'admin preauthkeys expire:--identifier'|'admin preauthkeys expire:-i'|'admin preauthkeys delete:--identifier'|'admin preauthkeys delete:-i'|'admin nodes expire:--identifier'|'admin nodes expire:-i'|'admin nodes expire:--expiry'|'admin nodes expire:-e'|'admin nodes rename:--identifier'|'admin nodes rename:-i'|'admin nodes delete:--identifier'|'admin nodes delete:-i'|'admin nodes tag:--identifier'|'admin nodes tag:-i'|'admin nodes tag:--tags'|'admin nodes tag:-t'|'admin nodes register:--key'|'admin nodes register:-k') skip=yes ;;
		*:-*) ;;
		*) path=${path:+$path }$word ;;
		esac
	done
	[[ $cur == '=' ]] && skip=yes
	[[ -n $skip ]] && { mapfile -t COMPREPLY < <(compgen -f -- "${cur#=}"); return; }
	case $path in
	'')
		words='up down logout status ping ip netcheck wait whois version admin completion' flags=' --socket= --color= --version' peers= ;;
	'up')
		words='' flags=' --login-server= --auth-key= --hostname= --reset --force-reauth --timeout= --json' peers= ;;
	'down')
		words='' flags='' peers= ;;
	'logout')
		words='' flags='' peers= ;;
	'status')
		words='' flags=' --json --active --self --peers --header --detail' peers= ;;
	'ping')
		words='' flags=' -c --timeout= --interval= --until-direct --verbose' peers=yes ;;
	'ip')
		words='' flags=' -1 -4 -6 --assert=' peers=yes ;;
	'netcheck')
		words='' flags=' --format= --verbose' peers= ;;
	'wait')
		words='' flags=' --timeout=' peers= ;;
	'whois')
		words='' flags=' --json' peers=yes ;;
	'version')
		words='' flags=' --json --daemon' peers= ;;
	'admin')
		words='users preauthkeys nodes health' flags=' --admin-socket= --output= --user= --force' peers= ;;
	'admin users')
		words='create list destroy rename' flags='' peers= ;;
	'admin users create')
		words='' flags=' --display-name= --email= --picture-url=' peers= ;;
	'admin users list')
		words='' flags=' --identifier= --name= --email=' peers= ;;
	'admin users destroy')
		words='' flags=' --identifier= --name=' peers= ;;
	'admin users rename')
		words='' flags=' --identifier= --name= --new-name=' peers= ;;
	'admin preauthkeys')
		words='create list expire delete' flags='' peers= ;;
	'admin preauthkeys create')
		words='' flags=' --reusable --ephemeral --expiration= --tags=' peers= ;;
	'admin preauthkeys list')
		words='' flags='' peers= ;;
	'admin preauthkeys expire')
		words='' flags=' --identifier=' peers= ;;
	'admin preauthkeys delete')
		words='' flags=' --identifier=' peers= ;;
	'admin nodes')
		words='list expire rename delete tag register' flags='' peers= ;;
	'admin nodes list')
		words='' flags='' peers= ;;
	'admin nodes expire')
		words='' flags=' --identifier= --expiry= --disable' peers= ;;
	'admin nodes rename')
		words='' flags=' --identifier=' peers= ;;
	'admin nodes delete')
		words='' flags=' --identifier=' peers= ;;
	'admin nodes tag')
		words='' flags=' --identifier= --tags=' peers= ;;
	'admin nodes register')
		words='' flags=' --key=' peers= ;;
	'admin health')
		words='' flags='' peers= ;;
	'completion')
		words='' flags='' peers= ;;
	*) return ;;
	esac
	[[ $cur == -* ]] && words=$flags
	[[ -n $peers && $cur != -* ]] && words=$(wgctl __complete peers 2>/dev/null)
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -F _wgctl wgctl

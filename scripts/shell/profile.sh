# For login shells in the pod (sshd, tmux): /etc/profile.d/pilot.sh. What needs no prompt, then what bashrc.sh adds.
[ -n "${BASH_VERSION:-}" ] || return 0
. /opt/pilot/scripts/shell/bashrc.sh

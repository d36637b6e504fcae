# For interactive shells in the pod: /etc/bash.bashrc reads it. Environment, completions, and a short greeting.
[ ! -r /run/pilot/shell.env ] || . /run/pilot/shell.env
unset PILOT_PASSWORD
umask 002
case ":$PATH:" in
*:/opt/pilot/scripts/shell/bin:*) ;;
*) export PATH=/opt/pilot/scripts/shell/bin:/opt/venvs/core/bin:$PATH ;;
esac
[ ! -r /usr/share/bash-completion/bash_completion ] || . /usr/share/bash-completion/bash_completion
[ ! -r /opt/pilot/scripts/shell/completions.bash ] || . /opt/pilot/scripts/shell/completions.bash
case $- in *i*) ;; *) return ;; esac
if [ -z "${PILOT_GREETED:-}" ]; then
    export PILOT_GREETED=1
    cat <<'GREETING'
LoRA Pilot. You are in the workspace; what you start here appears in the panel like any other run.
  train     trainpilot train --profile quick_test --dataset datasets/images/10_zorp --base-model models/pilot-tiny --name first
  convert   trainpilot convert outputs/first/first.safetensors --to diffusers
  verify    trainpilot verify outputs/first/first.safetensors
  more      trainpilot --help, controlpilot services list
GREETING
fi

# sh task.sh FOLDER SECONDS NAME: one line to FOLDER/witness when it starts, one when it is done, each in one write.
# `twice`: an earlier copy of the same task still lives; what its pid runs is compared, since pids are reused.
# `beside`: a process lives that FOLDER/survivors names by pid and start (tests/chaos writes there what outlived a kill),
# unless the runner that has started this is among them.
folder=$1 seconds=$2 name=$3
{ read -r old <"$folder/pid/$name" && read -r line <"/proc/$old/cmdline"; } 2>/dev/null
case $line in *"$folder$seconds$name") echo "twice $name $$ $old" >>"$folder/witness" ;; esac
beside=
{ while read -r other started; do
  [ "$other" = "$PPID" ] && beside= && break
  read -r line <"/proc/$other/stat" || line=
  set -- $line
  [ "${22}" = "$started" ] && [ "$3" != Z ] && beside="$beside $other"
done <"$folder/survivors"; } 2>/dev/null
[ -z "$beside" ] || echo "beside $name $$$beside" >>"$folder/witness"
echo "start $name $$" >>"$folder/witness"
echo $$ >"$folder/pid/$name"
sleep "$seconds"
echo "done $name $$" >>"$folder/witness"

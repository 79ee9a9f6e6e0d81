# sh task.sh FOLDER SECONDS NAME: one line to FOLDER/witness when it starts, one when it is done, each in one write.
# `twice`: an earlier copy of the same task still lives; what its pid runs is compared, since pids are reused.
# `beside`: a process lives that FOLDER/survivors names by pid and start (tests/chaos writes there what outlived a kill).
folder=$1 seconds=$2 name=$3
{ read -r old <"$folder/pid/$name" && read -r line <"/proc/$old/cmdline"; } 2>/dev/null
case $line in *"$folder$seconds$name") echo "twice $name $$ $old" >>"$folder/witness" ;; esac
{ while read -r other started; do
  read -r line <"/proc/$other/stat" || line=
  set -- $line
  [ "${22}" = "$started" ] && [ "$3" != Z ] && echo "beside $name $$ $other" >>"$folder/witness"
done <"$folder/survivors"; } 2>/dev/null
echo "start $name $$" >>"$folder/witness"
echo $$ >"$folder/pid/$name"
sleep "$seconds"
echo "done $name $$" >>"$folder/witness"

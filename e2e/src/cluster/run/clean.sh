# Removes the remains of a run. The arguments are the run's ID and directory. The clean-up process calls this script at the
# end of its run. A new run calls it for each earlier run that has ended. The script kills only processes in the run's
# cgroups, and processes whose command line names the run's directory or a cgroup of the run.
id=$1 directory=$2
[ -n "$id" ] && [ -n "$directory" ] || exit 1

members() {
  cat /sys/fs/cgroup/*/bob-"$id"-*/{,*/,*/*/,*/*/*/,*/*/*/*/}cgroup.procs /sys/fs/cgroup/bob-"$id"-*/{,*/,*/*/,*/*/*/,*/*/*/*/}cgroup.procs 2>/dev/null
  for command in /proc/[0-9]*/cmdline; do
    pid=${command#/proc/} pid=${pid%/cmdline}
    [ "$pid" = $$ ] || [ "$pid" = "$PPID" ] || { tr '\0' ' ' <"$command" | grep -q -F -e "$directory/" -e "bob-$id-"; } 2>/dev/null && echo "$pid"
  done
}
cgroups() { find /sys/fs/cgroup -maxdepth 2 -type d -name "bob-$id-*" 2>/dev/null; }

for _ in $(seq 100); do
  left=$(members | grep -v "^\($$\|$PPID\)$" | sort -u)
  [ -n "$left" ] && kill -KILL $left 2>/dev/null
  for top in $(cgroups); do find "$top" -depth -type d -exec rmdir {} + 2>/dev/null; done
  [ -z "$left" ] && [ -z "$(cgroups)" ] && break
  sleep 0.1
done
rm -rf --one-file-system "$directory"

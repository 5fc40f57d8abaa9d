# The first process of a node runs this script. The script mounts the node's directories and starts the node's programs.
# Killing the process simulates a power cut.
# Environment: DISK (the node's directory), PROGRAMS, NODE, NODE_IP.
set -eu
mount --make-rprivate /
for place in etc opt var/lib var/log; do mount --bind "$DISK/$place" "/$place"; done
mkdir -p /var/lib/kubelet /etc/cni/net.d /etc/kubernetes/manifests /opt/cni/bin /var/log/pods /var/log/containers
mount --bind /var/lib/kubelet /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount -t tmpfs -o mode=755 tmpfs /run
mount --make-rshared /run
mkdir -p /run/lock

# The kernel has one boot ID for all namespaces, but each node needs a different one. The kubelet would also change some
# settings of the host. So the script replaces each of these settings by a file that already contains the kubelet's value.
cp "$DISK/boot-id" /run/boot-id
mount --bind /run/boot-id /proc/sys/kernel/random/boot_id
# A container's /proc shows the kernel's boot ID, so the agent reads the node's boot ID from this file.
cp "$DISK/boot-id" /opt/cni/bin/boot-id
mkdir /run/sysctl
while read -r setting value; do
  file=/run/sysctl/${setting//\//.}
  echo "$value" >"$file"
  mount --bind "$file" "/proc/sys/$setting"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

hostname "$NODE"
export PATH="$PROGRAMS:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Runs a program and restarts it when it ends, as systemd does.
keep() {
  local log=$1
  shift
  while :; do
    "$@" >>"$log" 2>&1 || true
    sleep 0.5
  done
}
keep "$DISK/containerd.log" containerd --config "$DISK/containerd.toml" &
# The harness loads the images and then creates this file.
until [ -e "$DISK/go" ]; do sleep 0.05; done
keep "$DISK/kubelet.log" kubelet --config="$DISK/kubelet.yaml" --kubeconfig="$DISK/kubelet.kubeconfig" --hostname-override="$NODE" \
  --node-ip="$NODE_IP" --root-dir=/var/lib/kubelet --cert-dir=/var/lib/kubelet/pki --v=2 &
keep "$DISK/kube-proxy.log" kube-proxy --config="$DISK/kube-proxy.yaml" &
# Orphaned processes become children of the first process. bash reaps these processes while it waits.
while :; do sleep 3600 & wait $!; done

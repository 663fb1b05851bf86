# Sourced in the guest: makes the RDMA devices. rxe0 is on the guest's network card; rxe1 and rxe2 are at the two ends of
# a cable between two interfaces, so that what one sends reaches the other later, as between machines.
mkdir -p /run/tmp /run/home
export TMPDIR=/run/tmp HOME=/run/home DENO_DIR=/run/deno XDG_RUNTIME_DIR=/run/tmp
ulimit -l unlimited
echo 200000 >/proc/sys/net/core/netdev_max_backlog # at 1000 a message of 1 MiB overflows it
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
rdma link add rxe0 type rxe netdev eth0
ip link add v1 type veth peer name v2
for end in 1 2; do
  ip link set "v$end" mtu 4300
  ip addr add "10.9.$((end - 1)).$end/24" dev "v$end"
  ip link set "v$end" up
done
for i in all v1 v2; do
  echo 1 >"/proc/sys/net/ipv4/conf/$i/accept_local"
  echo 0 >"/proc/sys/net/ipv4/conf/$i/rp_filter"
done
ip route add 10.9.1.2/32 dev v1 src 10.9.0.1
ip route add 10.9.0.1/32 dev v2 src 10.9.1.2
ip neigh replace 10.9.1.2 lladdr "$(cat /sys/class/net/v2/address)" dev v1 nud permanent
ip neigh replace 10.9.0.1 lladdr "$(cat /sys/class/net/v1/address)" dev v2 nud permanent
rdma link add rxe1 type rxe netdev v1
rdma link add rxe2 type rxe netdev v2

export MC_GID_INDEX=1 MOONCAKE_PROTOCOL=rdma MOONCAKE_LOCAL_HOSTNAME=10.0.2.15 MOONCAKE_DEVICE_NAME=rxe0

# The client of `helm test`. It asks the Service bobbin-test for the server's node and addresses, and connects to each address.
service=${BOBBIN_TEST_SERVICE_HOST:-bobbin-test}

# Prints the answer of one address or name. Tries again for a while, because the server or a route may not be ready yet.
# The first command is there for its timeout, because not every wget has one that works.
fetch() {
  host=$1 tries=$2
  case $host in *:*) host="[$host]" ;; esac
  until /agnhost connect --timeout=3s "$host:8080" && wget -q -O - "http://$host:8080/"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 1
  done
}

if ! answer=$(fetch "$service" 60); then
  echo "The pod on node $NODE_NAME got no answer from Service bobbin-test ($service)."
  echo "Check whether pod bobbin-test-server runs, the routes between the nodes, and kube-proxy."
  exit 1
fi

node=${answer%%,*}
failed=0
IFS=,
for address in ${answer#*,}; do
  if [ "$(fetch "$address" 5)" = "$answer" ]; then
    echo "The pod on node $NODE_NAME reaches $address on node $node."
  else
    echo "The pod on node $NODE_NAME does not reach $address on node $node. Check the routes between both nodes."
    failed=1
  fi
done
if [ "$node" = "$NODE_NAME" ]; then
  echo "Both pods ran on node $node, so this test used no route between nodes."
fi
exit "$failed"

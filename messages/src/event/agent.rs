//! The events of the agent.

use super::events;

events! {
    ADDRESS_CONFLICT: Warning "AddressConflict" on "Node", "Exclude" {
        texts: ["IPAssignment <name> assigns address <address> to <owner>. Node <node> owns the block of this address, and does not allocate the address while the IPAssignment exists. If the IPAssignment names a pod that no longer runs, delete the IPAssignment. To see the IPAssignment, run: kubectl get ipassignment <name> -o yaml"],
        cause: "An IPAssignment assigns an address to an attachment. The node owns the block of the address, but does not have the attachment.",
        remedy: "Look at the IPAssignment. If the IPAssignment names a pod that no longer runs, delete the IPAssignment.",
    }
    ASSIGNMENT_REFUSED: Warning "AssignmentRefused" on "Node", "Assign" {
        texts: [
            "the API server refused the IPAssignment of address <address> for attachment <attachment> on node <node>: <why>. The pod of the attachment keeps the address. Check ClusterRole bobbin-agent and the admission policies",
            "an admission policy denied the IPAssignment of address <address> for attachment <attachment>: <why>. The pod of the attachment keeps the address. The agent tries again at least every 30 s to create the IPAssignment. Check the admission policies, and whether ConfigMap bobbin-denied-nodes has an entry for node <node>",
        ],
        cause: "The API server refuses to create the IPAssignment of a running pod.",
        remedy: "Correct the rights or the policy that the text names. The agent then creates the IPAssignment.",
    }
    BLOCK_IN_USE: Warning "BlockInUse" on "Node", "Retire" {
        texts: ["block <block> (<range>) of pool <pool> is being deleted, but <count> pods of node <node> use addresses of the block. The node assigns no new addresses from the block. The block is removed when the last of these pods ends. To find these pods, run: kubectl get ipassignments --field-selector spec.blockName=<block>"],
        cause: "Somebody deleted a block whose addresses pods use.",
        remedy: "The pods keep their addresses. To complete the deletion sooner, delete the pods that use the block.",
    }
    BLOCK_LOST: Warning "BlockLost" on "Node, Pod", "Withdraw" {
        texts: [
            "node <node> lost block <block> (<range>) of pool <pool>: <why>. The node no longer exports the block's route, but <count> pods of the node still use the block's addresses. Delete these pods, so that their replacements get other addresses: <pods>",
            "node <node> no longer has block <block> (<why>), but <pod> still has address <address> of this block. <pod> may be unreachable, or another pod may get the same address. Delete <pod>, so that its replacement gets another address",
        ],
        cause: "The node no longer owns the block. Either the operator released the block, because the Node was deleted and not registered again within the grace period (`operator.nodeGracePeriod`). Or somebody edited or restored the block.",
        remedy: "Delete the named pods.",
    }
    BLOCK_MISSING: Warning "BlockMissing" on "Node", "Read" {
        texts: ["block <block> (<range>) of pool <pool> was deleted although <count> pods of node <node> use addresses of the block. The node allocates no address from the block until the operator creates the block again. If that does not happen, find the cause in the log of bobbin-operator and with: kubectl get addresspool <pool> -o yaml"],
        cause: "Somebody deleted the block and removed its finalizer.",
        remedy: "The operator creates the block again. If that does not happen, read the conditions of the pool.",
    }
    BLOCK_RECLAIMED: Warning "BlockReclaimed" on "Node", "Claim" {
        texts: ["block <block> (<range>) of pool <pool> was free although <count> pods of node <node> use addresses of the block. The node therefore claimed the block back. Either bobbin-operator released the block because Node <node> was deleted and not registered again in time, or somebody edited or restored the block. To see who wrote the block, run: kubectl get addressblock <block> -o yaml --show-managed-fields"],
        cause: "A block with running pods had no owner.",
        remedy: "The pods keep their addresses. Find out who released the block, so that it does not happen again.",
    }
    BLOCK_UNREADABLE: Warning "BlockUnreadable" on "Node", "Read" {
        texts: ["<why>. Correct the block. To see the block, run: kubectl get addressblock <block> -o yaml"],
        cause: "The node owns a block that the agent can't use.",
        remedy: "Correct the block. The text names what is wrong with it.",
    }
    CHAINED_PLUGIN_UNKNOWN: Warning "ChainedPluginUnknown" on "Node", "Install" {
        texts: ["the chained CNI plugin <path> does not report its supported CNI versions (<why>). The agent assumes that the plugin supports only the oldest CNI version. Check that the plugin is installed"],
        cause: "A plugin of the chart value `cni.chained` is missing on the node, or fails.",
        remedy: "Install the plugin in the node's directory of CNI plugins, or remove the plugin from `cni.chained`.",
    }
    CLEANUP_FAILED: Warning "CleanupFailed" on "Node", "Uninstall" {
        texts: [
            "the agent could not remove Bobbin's routes from node <node>. Reboot the node, or run these commands on the node, each `ip` command with -4 and with -6: <commands>. The error: <error>",
            "cleanup incomplete: Bobbin was removed from node <node>, but the API server did not confirm the release of <count> blocks. The agent tries again until it is stopped. When the Node is deleted, the operator releases the blocks. To list the blocks, run: kubectl get addressblocks --field-selector spec.nodeName=<node>",
        ],
        cause: "The uninstall from the node could not remove everything.",
        remedy: "Follow the text: run its commands, or wait until the blocks are released.",
    }
    CNI_CONFIG_SHADOWED: Warning "CNIConfigShadowed" on "Node", "Install" {
        texts: [
            "the CNI configuration <file> sorts before <conflist>, so the runtime of node <node> uses this file instead of Bobbin's. If Bobbin should assign addresses to this node's pods, remove the file on the node",
            "the CNI configuration <file> sorts before <conflist>, and can't be read as JSON, so new pods may fail to start on node <node>. Correct or remove the file on the node",
        ],
        cause: "The file name of another CNI configuration on the node sorts before the name of Bobbin's file. The other file belongs to another network plugin, or is invalid.",
        remedy: "Remove the other plugin and its file, or remove Bobbin from the node. If the file is invalid, correct or remove it.",
    }
    CNI_VERSION_LOWERED: Warning "CNIVersionLowered" on "Node", "Install" {
        texts: ["a chained CNI plugin does not support CNI version <version>, so Bobbin's CNI configuration uses version <used> instead. To use <version>, upgrade the plugin. To keep <used> without this message, set the chart value cni.version=<used>"],
        cause: "A chained plugin supports only older CNI versions.",
        remedy: "Upgrade the plugin, or set the chart value `cni.version`.",
    }
    DUPLICATE_ADDRESS: Warning "DuplicateAddress" on "Node, Pod", "Compare" {
        texts: [
            "IPAssignment <name> assigns address <address> to <owner>, so <pod> gets another address. The node of <pod> does not allocate <address> while the IPAssignment exists. <>To see the IPAssignment, run: kubectl get ipassignment <name> -o yaml",
            "<pod> has address <address>, but IPAssignment <name> assigns address <address> to <owner>. The IPAssignment is valid, because the IPAssignment's node owns block <block>. The agent therefore removed the network of <pod>. Delete <pod>, so that its replacement gets another address",
            "<pod> has address <address>, but IPAssignment <name> assigns address <address> to <owner>. The IPAssignment is void, because the IPAssignment's node does not own block <block>. <pod> keeps the address. If the IPAssignment names another pod, the operator deletes the IPAssignment when that pod is gone. <>To see the IPAssignment, run: kubectl get ipassignment <name> -o yaml",
            "<pod> and <owner> run on the same node with the same address <address>. Delete one of the two, so that its replacement gets another address",
        ],
        cause: "Two attachments have the same address, for example after a restore of etcd or a manual edit.",
        remedy: "If the text says which pod to delete, delete that pod. Otherwise look at the IPAssignment. If the pod that the IPAssignment names is gone, delete the IPAssignment.",
    }
    EMPTY_POOL_NAME: Warning "EmptyPoolName" on "Pod, Namespace", "Select" {
        texts: ["the annotation <>bobbin.dev/pool<> of <object> is empty, so Bobbin ignores the annotation. Name a pool in the annotation, or remove the annotation"],
        cause: "The annotation has no value.",
        remedy: "Name a pool in the annotation, or remove the annotation. Then create the pod again.",
    }
    EXPORT_FAILED: Warning "ExportFailed" on "Node", "Export" {
        texts: ["node <node> releases block <block>, because every attempt to write the block's route has failed for <seconds> s: <why>. See the agent's log. Another program may have a route with the same destination. To find it, run on the node: ip route show table <table>; ip -6 route show table <table>"],
        cause: "The kernel refuses the route of a claimed block.",
        remedy: "Read the kernel's error in the text. Often another program has a route with the same destination.",
    }
    FAILED_ALLOCATE_ADDRESS: Warning "FailedAllocateAddress" on "Pod", "Select" {
        texts: ["<pod> gets no address: <why>"],
        cause: "The pool that is selected for the pod gives no address. The text says which rule selects the pool, and why the pool gives no address.",
        remedy: "Follow the end of the text: correct the annotation, the pool, or the labels of the namespace or the Node.",
    }
    GC_STOPPED: Warning "GCStopped" on "Node", "Release" {
        texts: ["GC of network <network> on node <node> removed nothing, because the container runtime did not list <count> of <count> pod interfaces (attachments). The agent does not remove so many in one GC call. To find the containers that are gone, compare `crictl pods` on the node with `kubectl get ipassignments --field-selector spec.nodeName=<node> -o custom-columns=ID:.spec.containerID,POD:.spec.podName`. Then, <command>"],
        cause: "The container runtime lists so few attachments that the agent does not trust the list.",
        remedy: "Compare the pods with the IPAssignments. Run the command only for containers that are gone.",
    }
    HOST_PORT_IGNORED: Warning "HostPortIgnored" on "Pod", "Wire" {
        texts: ["<pod> gets no hostPort <ports>, because no chained plugin of Bobbin's CNI configuration has the capability portMappings. Remove hostPort from the pod, or add <plugin> to the chart value cni.chained. Then create the pod again"],
        cause: "The pod has a hostPort, and no plugin serves host ports.",
        remedy: "Add the plugin portmap to `cni.chained`, or remove hostPort from the pod.",
    }
    INSTALLATION_RESTORED: Warning "InstallationRestored" on "Node", "Install" {
        texts: ["another program removed or changed <path> on node <node>, and the agent restored the file. If this happens again, find out which program manages the file's directory"],
        cause: "Another program changes the files of CNI plugins.",
        remedy: "Find the program, and configure it to leave Bobbin's files alone.",
    }
    INSTALL_FAILED: Warning "InstallFailed" on "Node", "Install" {
        texts: ["the agent can't install <what>"],
        cause: "The agent can't write the CNI plugin or its configuration, or a setting of the configuration is invalid.",
        remedy: "Follow the text: remove the directory, free space on the disk, or correct the mount or the chart value.",
    }
    INTERFACE_LOST: Warning "InterfaceLost" on "Pod", "Reconcile" {
        texts: ["<pod> (<address>) has lost its interface <interface> and has no network; delete the pod, so that a new pod gets a network"],
        cause: "Another program deleted the pod's interface.",
        remedy: "Delete the pod.",
    }
    INTERFACE_MOVED: Warning "InterfaceMoved" on "Pod", "Reconcile" {
        texts: ["the network namespace of <pod> (<address>) is gone, but the interface<> was moved to another network namespace. The address stays in use. When nothing uses the interface any more, delete the pod to free the address"],
        cause: "A program moved the pod's interface, for example into a virtual machine.",
        remedy: "Delete the pod when nothing uses the interface.",
    }
    INVALID_POOL_NAME: Warning "InvalidPoolName" on "Namespace", "Select" {
        texts: ["the annotation <>bobbin.dev/pool<> of <object> names pool <pool>, which is not a valid pool name: <rule>. Name an existing pool in the annotation"],
        cause: "The annotation names a pool that can't exist.",
        remedy: "Correct the name in the annotation.",
    }
    METRICS_PORT_IN_USE: Warning "MetricsPortInUse" on "Node", "Serve" {
        texts: ["can't serve metrics and health at <address>: <error>. Bobbin keeps running and tries again. Free the port (`ss -ltnp` shows which program uses it), or set another address with --metrics-address"],
        cause: "Another program on the node uses the agent's port.",
        remedy: "End the other program, or change the chart value `agent.port`.",
    }
    NETWORK_CONFLICT: Warning "NetworkConflict" on "Node", "Compare" {
        texts: [
            "another program (protocol <protocol>) has the route <route> in Bobbin's <table>. Bobbin does not change the route. Configure another table for that program or for Bobbin",
            "another program (protocol <protocol>) has a rule of priority <priority> (table <table>). Bobbin's rule has the same priority. Bobbin does not change the program's rule. Configure another priority for that program or for Bobbin",
            "link <link> of another program is in link group <group>, which Bobbin uses for pods. Bobbin's anti-spoofing filter therefore also checks packets from this link. Configure another group for that program or for Bobbin",
        ],
        cause: "Another program uses a table, priority or link group of Bobbin.",
        remedy: "Configure another table, priority or link group for the other program, or change the chart values under `network`.",
    }
    NETWORK_NOT_REPAIRED: Warning "NetworkNotRepaired" on "Node", "Reconcile" {
        texts: ["the agent could not repair the node's network: <what>. The agent tries again every minute. If the problem stays, find out which program changes or blocks the named object, and reconfigure that program"],
        cause: "The kernel refuses a repair, or another program's object is in the way.",
        remedy: "Remove or reconfigure the other object. The agent then repairs the network.",
    }
    NETWORK_REPAIRED: Normal "NetworkRepaired" on "Node", "Reconcile" {
        texts: ["another program changed the node's network, and the agent repaired it: <changes>"],
        cause: "Another program removed or changed a link, route or rule of Bobbin.",
        remedy: "None, unless it happens again and again. Then find the program.",
    }
    NODE_NETWORK: Warning "NodeNetwork" on "AddressPool", "Claim" {
        texts: ["pool <pool> overlaps networks of node <node>: <networks>. The node skips the blocks with addresses of these networks, because the blocks' routes would cut the node off from these networks. To get other blocks, <remedy>. Alternatively, exclude the node with the pool's nodeSelector"],
        cause: "The pool overlaps a network that the node itself uses.",
        remedy: "Reserve the addresses in the pool's `spec.reserved`, or exclude the node from the pool.",
    }
    ORPHANED_ASSIGNMENT: Warning "OrphanedAssignment" on "Node", "Release" {
        texts: [
            "<count> of <count> IPAssignments of node <node> have neither an attachment nor a pod. These are too many to delete at once, so the agent deleted none. Check whether the agent's run directory lost its checkpoint. Then delete the IPAssignments whose pods no longer exist. To list all IPAssignments of the node, run: kubectl get ipassignments --field-selector spec.nodeName=<node>",
            "block <block> is not released, because a pod may still use the address of IPAssignment <name>. The IPAssignment belongs to <owner>, but the agent of node <node> knows no attachment with this address. The agent deletes the IPAssignment after it has proven that the owner is gone. If you know that the owner is gone, run: kubectl delete ipassignment <name>",
        ],
        cause: "An IPAssignment of the node belongs to no attachment that the agent knows.",
        remedy: "Delete the IPAssignments whose pods are gone.",
    }
    POOL_EXHAUSTED: Warning "PoolExhausted" on "Pod, AddressPool", "Assign" {
        texts: ["pool <pool> has no free address for node <node>: <count> addresses in the node's <count> blocks are in use; <why>. What to do: <remedy>. The runtime repeats the ADD"],
        cause: "The node has no free address of the pool and can claim no block.",
        remedy: "Follow the remedy in the text. It depends on the cause: a full pool, a limit, or reserved addresses.",
    }
    REMOVED: Normal "Removed" on "Node", "Uninstall" {
        texts: ["Bobbin was removed from node <node>. When every Node has an event with the reason Removed, run: kubectl delete addresspools --all --wait, and then helm uninstall. To use Bobbin again instead, undo what started the removal: set the chart value agent.mode=run, or remove the label bobbin.dev/agent=remove from the Node"],
        cause: "The agent runs with `--mode=remove` and has finished.",
        remedy: "When each Node has this event, delete the pools, and then run `helm uninstall`.",
    }
    STALE_REMOVAL_STOPPED: Warning "StaleRemovalStopped" on "Node", "Release" {
        texts: ["<count> of <count> pod interfaces (attachments) on node <node> look stale: their network namespaces or pods are gone, but the runtime has not called DEL. The agent does not remove so many by itself, so it removed none. To find the containers that are gone, compare `crictl pods` on the node with `kubectl get ipassignments --field-selector spec.nodeName=<node> -o custom-columns=ID:.spec.containerID,POD:.spec.podName`. Then, <command>"],
        cause: "So many attachments look stale that the agent does not trust the check.",
        remedy: "Compare the pods with the IPAssignments. Run the command only for containers that are gone.",
    }
    UNINSTALL_FAILED: Warning "UninstallFailed" on "Node", "Uninstall" {
        texts: ["the agent can't remove <path>: <error>. Remove the file on the node"],
        cause: "The agent could not remove its CNI configuration or its plugin from the node.",
        remedy: "Remove the file on the node. Then delete the agent's pod on the node: the pod's replacement continues the uninstall.",
    }
    UNKNOWN_ANNOTATION: Warning "UnknownAnnotation" on "Pod, Namespace", "Select" {
        texts: ["Bobbin ignores <annotations> of <object>, because Bobbin knows only <>bobbin.dev/pool<>. Correct or remove each unknown annotation"],
        cause: "An annotation with the prefix bobbin.dev is probably misspelt.",
        remedy: "Correct or remove the annotation. Then create the pod again.",
    }
    VOID_ASSIGNMENT: Warning "VoidAssignment" on "Node", "Compare" {
        texts: ["IPAssignment <name> of node <node> is void, because <why>. To see the IPAssignment's addresses and the name of its pod, run: kubectl get ipassignment <name> -o yaml. If the IPAssignment names a pod, delete the pod: the operator then deletes the IPAssignment. Otherwise run: kubectl delete ipassignment <name>"],
        cause: "An IPAssignment has an address that is not in a block of its node.",
        remedy: "Delete the pod that the IPAssignment names. If the IPAssignment names no pod, delete the IPAssignment.",
    }
    WAITING_FOR_BLOCKS: Normal "WaitingForBlocks" on "Node", "Uninstall" {
        texts: ["the uninstall from node <node> waits until <count> IPAssignments are deleted and <count> blocks are released: <blocks>. Check that the API server answers, and look at the node's events. To uninstall without waiting, set agent.force=true. The blocks then stay claimed. The operator releases them after the Node is deleted"],
        cause: "The uninstall waits for the API server.",
        remedy: "Make sure that the API server answers. To uninstall without waiting, set the chart value `agent.force` to true.",
    }
    WAITING_FOR_PODS: Normal "WaitingForPods" on "Node", "Uninstall" {
        texts: ["the uninstall from node <node> waits until <count> pod interfaces (attachments) have ended: <pods>. Delete or move these pods, or set agent.force=true to cut them off"],
        cause: "Pods on the node still have addresses of Bobbin.",
        remedy: "Delete or move the named pods.",
    }
}

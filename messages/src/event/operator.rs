//! The events of the operator and of the check before an uninstall.

use super::{Event, events};

events! {
    EXHAUSTED: Warning "Exhausted" on "AddressPool", "Carve" {
        texts: [
            "all <count> addresses of pool <pool> are reserved: remove entries of spec.reserved, or append a subnet to spec.subnets",
            "all <count> addresses of pool <pool> are in use or reserved: append a subnet to the pool's spec.subnets, or delete pods that use its addresses",
        ],
        cause: "The condition `Exhausted` became true.",
        remedy: "Append a subnet. If all addresses are reserved, remove entries of `spec.reserved` instead.",
    }
    INVALID: Warning "Invalid" on "AddressPool", "Accept" {
        texts: ["the operator can't divide the pool into blocks: <why>"],
        cause: "The pool's spec can't be parsed. The schema should have refused it.",
        remedy: "Correct the field that the text names.",
    }
    LEFTOVER_OBJECT: Warning "LeftoverObject" on "AddressPool", "Accept" {
        texts: ["subnet <subnet> overlaps <object> (<range>). <>A deleted pool left this object behind, and pods may still use its addresses. Delete these pods, or wait until the object is deleted"],
        cause: "A block or an assignment of a deleted pool has addresses of the subnet.",
        remedy: "Delete the pods that use the addresses. The operator accepts the subnet when the object is gone.",
    }
    NODE_ADDRESS: Warning "NodeAddress" on "AddressPool", "Accept" {
        texts: [
            "subnet <subnet> overlaps <object> (<range>). <>A pod with a node's address would cut the node off from the network. Choose subnets without node addresses for the pool",
            "the address <address> of Node <node> lies in the pool and is reserved",
            "Node <node> no longer reports its address <address>. The address stays reserved in the pool until the grace period (operator.nodeGracePeriod) is over",
            "a Node had the address <address> before this operator became the leader, but no Node has it now. The address stays reserved until the grace period (operator.nodeGracePeriod) is over",
        ],
        cause: "Addresses of Nodes lie in a subnet of the pool.",
        remedy: "If the operator refused the subnet, choose another subnet. If the subnet is accepted, its Node addresses are reserved: delete the pods that have these addresses.",
    }
    NODE_ADDRESSES_RELEASED: Either "NodeAddressesReleased" on "Node, ConfigMap", "Release" {
        texts: [
            "the operator released <what> of node <node>, because Node <node> was deleted. Other pods may now get the released addresses. If the machine still runs pods, end those pods, or turn the machine off",
            "the operator released <what> of <count> nodes, because these Nodes were deleted: <nodes>. Other pods may now get the released addresses. If the machines still run pods, end those pods, or turn the machines off",
        ],
        cause: "A Node was deleted, and the operator no longer waits for its return.",
        remedy: "Make sure that the machine is off, or that its pods have ended.",
    }
    NODE_DELETED: Either "NodeDeleted" on "Node, ConfigMap", "Wait" {
        texts: [
            "Node <node> was deleted while it was out of service, so the operator releases the node's <what> at once",
            "Node <node> was deleted, so the operator releases the node's <what> at <time>. If the machine runs, restart kubelet on the node before that time: it registers the Node again, and the node keeps its blocks and addresses. <>If many Nodes are deleted together, the operator waits longer. Then the event ReclaimHeld has the command that releases the blocks",
            "Node <node> was deleted. The operator does not release the node's <what> yet, because many Nodes were deleted together. If the machine runs, restart kubelet on the node: it registers the Node again, and the node keeps its blocks and addresses. If the machine is off, run the command in the event ReclaimHeld, which releases the blocks and addresses",
            "<count> Nodes were deleted: <nodes>. The operator releases the nodes' <what> <seconds> s after the deletion. If the machines run, restart kubelet on these nodes before that time: it registers the Nodes again, and the nodes keep their blocks and addresses. <>If many Nodes are deleted together, the operator waits longer. Then the event ReclaimHeld has the command that releases the blocks",
            "<count> Nodes were deleted: <nodes>. The operator does not release the nodes' <what> yet, because many Nodes were deleted together. If the machines run, restart kubelet on these nodes: it registers the Nodes again, and the nodes keep their blocks and addresses. If the machines are off, run the command in the event ReclaimHeld, which releases the blocks and addresses",
        ],
        cause: "A Node with blocks or addresses no longer exists.",
        remedy: "If the deletion was a mistake, restart kubelet on the node: kubelet registers the Node again.",
    }
    NODE_DENIED: Warning "NodeDenied" on "Node", "Deny" {
        texts: ["the operator denies node <node> every claim and every new IPAssignment, because <why>. The token of the node's agent may be stolen. First delete the agent's pod on the node, which invalidates the token. Then remove the node's entry from ConfigMap <configmap>: <command>"],
        cause: "The node claimed too many blocks of a pool, or blocks of a pool whose nodeSelector does not admit the node. Or the node has too many IPAssignments with addresses outside its blocks.",
        remedy: "Find out whether the agent's token was stolen. Then follow the steps in the text.",
    }
    POOL_OVERLAP: Warning "PoolOverlap" on "AddressPool", "Accept" {
        texts: [
            "subnet <subnet> overlaps the earlier subnet <earlier> of pool <pool>: change or remove subnet <subnet>, or delete pool <pool>",
            "subnet <subnet> overlaps the earlier subnet <earlier> of pool <pool>, which is being deleted. The operator accepts subnet <subnet> after pool <pool> is gone. The deletion waits until all addresses of that pool are free and have cooled down. To see what the deletion waits for, run: kubectl describe addresspool <pool>",
        ],
        cause: "Two pools have the same addresses. The earlier pool keeps them.",
        remedy: "Change or remove the subnet, or delete the other pool. If the other pool is being deleted, wait.",
    }
    RECLAIM_HELD: Warning "ReclaimHeld" on "ConfigMap", "Hold" {
        texts: ["<count> deleted nodes keep their blocks until <time>, because many Nodes were deleted together: <nodes>. If the machines run, restart kubelet on these nodes: it registers the Nodes again, and the nodes keep their blocks. If all of these machines are off, run this command to release the blocks: kubectl -n <namespace> annotate configmap <configmap> <confirmation> --overwrite"],
        cause: "At least three Nodes, and more than one tenth of the nodes with blocks or assignments, were deleted within one grace period (`operator.nodeGracePeriod`). Because so many deletions may be a mistake, the operator waits longer.",
        remedy: "If the machines are off, run the command. Otherwise restart kubelet on the machines.",
    }
    RESERVED_IN_USE: Warning "ReservedInUse" on "AddressPool", "Compare" {
        texts: ["pods use the reserved addresses <addresses>, and keep these addresses until the pods are deleted. Delete these pods. To find these pods, look for the addresses in the output of: kubectl get ipassignments"],
        cause: "Addresses were reserved while pods used them.",
        remedy: "Delete the pods that use the addresses.",
    }
    RESERVED_OUTSIDE: Warning "ReservedOutside" on "AddressPool", "Compare" {
        texts: ["these entries of spec.reserved lie in no subnet of the pool and have no effect: <entries>. Correct or remove these entries"],
        cause: "An entry of `spec.reserved` is probably misspelt.",
        remedy: "Correct or remove the entry.",
    }
    SERVICE_RANGE: Warning "ServiceRange" on "AddressPool", "Accept" {
        texts: [
            "subnet <subnet> overlaps <object> (<range>). <>A node with a block of these addresses could not reach the Services. Choose subnets outside of all ServiceCIDRs",
            "<object> (<range>) overlaps the pool, so a Service and a pod can have the same address. To prevent this, <remedy>, or delete the ServiceCIDR",
        ],
        cause: "A subnet of the pool contains addresses of Services.",
        remedy: "Choose other subnets. If the subnet is accepted, drain the pool or delete the ServiceCIDR.",
    }
    UNINSTALL_REFUSED: Warning "UninstallRefused" on "Job", "Uninstall" {
        texts: [
            "Bobbin is not uninstalled, because <count> addresses are assigned to pods: <pods>. <>Bobbin keeps running, but Helm can't upgrade it after this failed uninstall. To allow upgrades again, run: <command>. Then start the removal from the nodes: <command>. Then delete or move these pods, so that the agents can finish the removal. <>To uninstall anyway, run: <command>",
            "Bobbin is not uninstalled, because the operator has not finished deleting these AddressPools: <pools>. Wait until all of these pools are gone, and uninstall again. To wait for one pool, run: <command>. <>To uninstall anyway, run: <command>. <>Bobbin keeps running, but Helm can't upgrade it after this failed uninstall. To allow upgrades again, run: <command>",
            "Bobbin is not uninstalled, because the check could not find out whether pods have addresses: <why>. Try again. <>Bobbin keeps running, but Helm can't upgrade it after this failed uninstall. To allow upgrades again, run: <command>. <>To uninstall anyway, run: <command>",
        ],
        cause: "`helm uninstall` ran while pods had addresses of Bobbin, or while a pool was being deleted. Or the check could not read the objects.",
        remedy: "Follow the steps in the text. The command with `--no-hooks` skips the check and can cut off pods: run it only if this does no harm.",
    }
    UNREADABLE: Warning "Unreadable" on "AddressPool, AddressBlock, IPAssignment, Node, Pod, ServiceCIDR", "Decode" {
        texts: ["<object> can't be read: <why>. Until somebody corrects the object, it counts as in use. Correct the object with: <command>"],
        cause: "An object has a field that Bobbin can't read. The object counts as present and in use.",
        remedy: "Correct the field that the text names, or upgrade Bobbin.",
    }
    UNREADABLE_OBJECT: Warning "UnreadableObject" on "AddressPool", "Accept" {
        texts: ["subnet <subnet> overlaps <object> (<range>). <>The object has invalid fields, so Bobbin can't tell whether the addresses of this range are in use. Correct or delete the object. The object's event says what is wrong"],
        cause: "Bobbin can't read an object, and the object may have addresses of the subnet.",
        remedy: "Correct or delete the object.",
    }
}

/// Returns the event to publish when a condition begins to need attention, or `None` if the catalog has no event for
/// this condition.
#[must_use]
pub fn of_condition(type_: &str, reason: &str) -> Option<&'static Event> {
    // An event has the same reason as its condition, except the event about `Exhausted`. That event has the condition's
    // type as its reason, because `NoFreeAddress` or `AllReserved` alone does not say that the pool is exhausted.
    let wanted = if type_ == crate::condition::EXHAUSTED { type_ } else { reason };
    ALL.iter().find(|event| event.reason == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, Status};

    #[test]
    fn each_condition_that_needs_attention_has_an_event() {
        let bad = [
            (condition::EXHAUSTED, Status::True),
            (condition::ACCEPTED, Status::False),
            (condition::ADDRESS_CONFLICT, Status::True),
            (condition::MISCONFIGURED, Status::True),
        ];
        for (type_, status) in bad {
            let of_type = condition::all().filter(|entry| entry.status == status && entry.types.contains(&type_));
            for entry in of_type {
                assert!(of_condition(type_, entry.reason).is_some(), "{type_} {}", entry.reason);
            }
        }
    }
}

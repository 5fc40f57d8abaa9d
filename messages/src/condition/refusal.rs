//! The reasons for which the operator refuses a subnet. `status.refusedSubnets` and the condition `Accepted` contain
//! these reasons.

conditions! {
    LEFTOVER_OBJECT: False "LeftoverObject" of [ACCEPTED] {
        texts: ["subnet <subnet> overlaps <object> (<range>). <>A deleted pool left this object behind, and pods may still use its addresses. Delete these pods, or wait until the object is deleted"],
        cause: "A block or an assignment of a deleted pool has addresses of the subnet.",
        remedy: "Delete the pods that use the addresses, or wait.",
    }
    NODE_ADDRESS: False "NodeAddress" of [ACCEPTED] {
        texts: ["subnet <subnet> overlaps <object> (<range>). <>A pod with a node's address would cut the node off from the network. Choose subnets without node addresses for the pool"],
        cause: "A Node has an address of the subnet.",
        remedy: "Choose another subnet.",
    }
    POOL_OVERLAP: False "PoolOverlap" of [ACCEPTED] {
        texts: [
            "subnet <subnet> overlaps the earlier subnet <earlier> of pool <pool>: change or remove subnet <subnet>, or delete pool <pool>",
            "subnet <subnet> overlaps the earlier subnet <earlier> of pool <pool>, which is being deleted. The operator accepts subnet <subnet> after pool <pool> is gone. The deletion waits until all addresses of that pool are free and have cooled down. To see what the deletion waits for, run: kubectl describe addresspool <pool>",
        ],
        cause: "An earlier pool has addresses of the subnet.",
        remedy: "Change or remove the subnet, or delete the other pool. If the other pool is being deleted, wait.",
    }
    SERVICE_RANGE: False "ServiceRange" of [ACCEPTED] {
        texts: ["subnet <subnet> overlaps <object> (<range>). <>A node with a block of these addresses could not reach the Services. Choose subnets outside of all ServiceCIDRs"],
        cause: "A ServiceCIDR has addresses of the subnet.",
        remedy: "Choose another subnet.",
    }
    UNREADABLE_OBJECT: False "UnreadableObject" of [ACCEPTED] {
        texts: ["subnet <subnet> overlaps <object> (<range>). <>The object has invalid fields, so Bobbin can't tell whether the addresses of this range are in use. Correct or delete the object. The object's event says what is wrong"],
        cause: "Bobbin can't read an object, and the object may have addresses of the subnet.",
        remedy: "Correct or delete the object.",
    }
}

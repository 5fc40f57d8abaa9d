//! All states of a pool's conditions except the refusals of a subnet (module `refusal`), in the order of the condition
//! types.

conditions! {
    READY: True "SubnetsAccepted" of [READY] {
        texts: ["nodes can claim blocks of the accepted subnets"],
        cause: "The pool serves pods.",
        remedy: "None.",
    }
    NO_NODE_ADMITTED: True "NoNodeAdmitted" of [READY] {
        texts: [
            "the pool is ready, but no node can claim a block of it: <>its spec.nodeSelector admits no node, because <why>",
            "the pool is ready, but no node can claim a block of it: <>every Node<> is out of service. If the machines run, remove the taint node.kubernetes.io/out-of-service",
            "the pool is ready, but no node can claim a block of it: <>its spec.nodeSelector <selector> selects no Node of the cluster. Correct the selector, or label the Nodes that should use the pool",
        ],
        cause: "No Node may use the pool.",
        remedy: "Correct the selector, label the Nodes, or remove the taint that the text names.",
    }
    PARTLY_READY: True "Overlaps" of [READY] {
        texts: ["the pool is ready, but the operator has not accepted all of its subnets: <refusals>"],
        cause: "The operator has not accepted some subnets of the pool. The pool serves pods from its other subnets.",
        remedy: "Follow the text about each refused subnet.",
    }
    OVERLAPS: False "Overlaps" of [READY] {
        texts: ["<refusals>"],
        cause: "The operator refuses each subnet of the pool.",
        remedy: "Follow the text about each refused subnet.",
    }
    NOT_READY_PENDING: False "Pending" of [READY] {
        texts: ["the operator is comparing the pool's subnets with the subnets of other pools"],
        cause: "The pool is new.",
        remedy: "Wait a few seconds. If the state stays, read the operator's log.",
    }
    NOT_READY_DRAINING: False "Draining" of [READY] {
        texts: [
            "the pool is draining and assigns no new addresses<>: set spec.draining to false to use the pool again",
            "the pool is draining and assigns no new addresses<>, and the operator has accepted none of its subnets. To use the pool again, correct the subnets as the condition Accepted says, and set spec.draining to false",
        ],
        cause: "`spec.draining` is true.",
        remedy: "Set `spec.draining` to false to use the pool again.",
    }
    NOT_READY_DELETED: False "Terminating" of [READY] {
        texts: ["the pool is being deleted and assigns no addresses: create another pool"],
        cause: "Somebody deleted the pool.",
        remedy: "A deletion can't be undone. Create another pool.",
    }
    NOT_READY_NODE_ADDRESSES: False "NodeAddress" of [READY] {
        texts: ["the pool contains more addresses of Nodes than Bobbin can reserve (<count>), so nodes claim no block of it. Create another pool outside of the Nodes' network"],
        cause: "The pool overlaps the network of the Nodes.",
        remedy: "Create another pool, and drain this one.",
    }
    INVALID: False "Invalid" of [READY, ACCEPTED] {
        texts: ["the operator can't divide the pool into blocks: <why>"],
        cause: "The spec can't be parsed. The schema should have refused it.",
        remedy: "Correct the field that the text names.",
    }
    ACCEPTED: True "SubnetsAccepted" of [ACCEPTED] {
        texts: ["the operator has accepted all subnets of the pool"],
        cause: "No other object has addresses of the pool.",
        remedy: "None.",
    }
    ACCEPTED_PENDING: Unknown "Pending" of [ACCEPTED] {
        texts: ["the operator is comparing a subnet with the addresses of other objects"],
        cause: "A subnet is new.",
        remedy: "Wait a few seconds. If the state stays, read the operator's log.",
    }
    ACCEPTED_DELETED: Unknown "Terminating" of [ACCEPTED] {
        texts: ["the pool is being deleted, so the operator accepts no more of its subnets"],
        cause: "Somebody deleted the pool.",
        remedy: "None.",
    }
    CLOSED_DELETED: Unknown "Terminating" of [BLOCKS_EXHAUSTED, EXHAUSTED] {
        texts: ["the pool is being deleted, so nodes claim no block of it"],
        cause: "Somebody deleted the pool.",
        remedy: "None.",
    }
    CLOSED_INVALID: Unknown "Invalid" of [BLOCKS_EXHAUSTED, EXHAUSTED, MISCONFIGURED] {
        texts: ["the operator can't divide the pool into blocks: <why>"],
        cause: "The spec can't be parsed. The schema should have refused it.",
        remedy: "Correct the field that the text names.",
    }
    NOTHING_ACCEPTED: Unknown "NothingAccepted" of [BLOCKS_EXHAUSTED, EXHAUSTED] {
        texts: ["the operator has accepted no subnet of the pool"],
        cause: "The pool has no accepted subnet.",
        remedy: "Read the condition `Accepted`.",
    }
    CLOSED_DRAINING: Unknown "Draining" of [BLOCKS_EXHAUSTED, EXHAUSTED] {
        texts: ["the pool is draining, so nodes claim no block of it"],
        cause: "`spec.draining` is true.",
        remedy: "None.",
    }
    CLOSED_NODE_ADDRESSES: Unknown "NodeAddress" of [BLOCKS_EXHAUSTED, EXHAUSTED] {
        texts: ["the pool contains more addresses of Nodes than Bobbin can reserve (<count>), so nodes claim no block of it. Create another pool outside of the Nodes' network"],
        cause: "The pool overlaps the network of the Nodes.",
        remedy: "Create another pool, and drain this one.",
    }
    FREE_BLOCKS: False "FreeBlocks" of [BLOCKS_EXHAUSTED, EXHAUSTED] {
        texts: ["the pool has free blocks"],
        cause: "Nodes can claim blocks.",
        remedy: "None.",
    }
    NO_FREE_BLOCK: True "NoFreeBlock" of [BLOCKS_EXHAUSTED] {
        texts: ["no node can claim another block of the pool: append a subnet to the pool's spec.subnets"],
        cause: "Each block of the pool is claimed by a node or reserved.",
        remedy: "Append a subnet.",
    }
    FREE_ADDRESSES: False "FreeAddresses" of [EXHAUSTED] {
        texts: ["nodes have claimed all blocks, but some of these blocks have free addresses"],
        cause: "No block is free, so a new pod gets an address only on a node whose blocks have free addresses.",
        remedy: "Append a subnet before these addresses are used up.",
    }
    ALL_RESERVED: True "AllReserved" of [EXHAUSTED] {
        texts: ["all <count> addresses of pool <pool> are reserved: remove entries of spec.reserved, or append a subnet to spec.subnets"],
        cause: "The pool has no address for pods.",
        remedy: "Remove entries of `spec.reserved`, or append a subnet.",
    }
    NO_FREE_ADDRESS: True "NoFreeAddress" of [EXHAUSTED] {
        texts: ["all <count> addresses of pool <pool> are in use or reserved: append a subnet to the pool's spec.subnets, or delete pods that use its addresses"],
        cause: "The pool is full.",
        remedy: "Append a subnet, or delete pods that use the pool.",
    }
    NO_CONFLICT: False "NoConflict" of [ADDRESS_CONFLICT] {
        texts: ["the accepted subnets of the pool contain no address of a Node, and overlap no Service range"],
        cause: "The pool overlaps no network of the cluster.",
        remedy: "None.",
    }
    NODE_ADDRESS_INSIDE: True "NodeAddress" of [ADDRESS_CONFLICT] {
        texts: [
            "the address <address> of Node <node> lies in the pool and is reserved",
            "Node <node> no longer reports its address <address>. The address stays reserved in the pool until the grace period (operator.nodeGracePeriod) is over",
            "a Node had the address <address> before this operator became the leader, but no Node has it now. The address stays reserved until the grace period (operator.nodeGracePeriod) is over",
        ],
        cause: "Addresses of Nodes lie in an accepted subnet.",
        remedy: "No new pod gets these addresses. If the text says that an assignment has the address, delete the pod of this assignment.",
    }
    SERVICE_RANGE_INSIDE: True "ServiceRange" of [ADDRESS_CONFLICT] {
        texts: ["<object> (<range>) overlaps the pool, so a Service and a pod can have the same address. To prevent this, <remedy>, or delete the ServiceCIDR"],
        cause: "A ServiceCIDR was created in an accepted subnet.",
        remedy: "Drain the pool, or delete the ServiceCIDR.",
    }
    AS_EXPECTED: False "AsExpected" of [MISCONFIGURED] {
        texts: ["every entry of spec.reserved lies in a subnet of the pool, and no pod uses a reserved address"],
        cause: "The operator finds no problem in the spec.",
        remedy: "None.",
    }
    RESERVED_OUTSIDE: True "ReservedOutside" of [MISCONFIGURED] {
        texts: ["these entries of spec.reserved lie in no subnet of the pool and have no effect: <entries>. Correct or remove these entries"],
        cause: "An entry of `spec.reserved` is probably misspelt.",
        remedy: "Correct or remove the entry.",
    }
    RESERVED_IN_USE: True "ReservedInUse" of [MISCONFIGURED] {
        texts: ["pods use the reserved addresses <addresses>, and keep these addresses until the pods are deleted. Delete these pods. To find these pods, look for the addresses in the output of: kubectl get ipassignments"],
        cause: "Addresses were reserved while pods used them.",
        remedy: "Delete the pods that use the addresses.",
    }
    SPEC_OF_DELETED: Unknown "Terminating" of [MISCONFIGURED] {
        texts: ["the pool is being deleted, so the operator no longer checks its spec"],
        cause: "Somebody deleted the pool.",
        remedy: "None.",
    }
    DELETION_IN_USE: True "InUse" of [TERMINATING] {
        texts: ["the deletion of the pool waits until <count> addresses in <count> claimed blocks on <count> nodes are free: <nodes>. Delete the pods that use these addresses, or evict them: kubectl bobbin drain <pool> --evict"],
        cause: "Pods use addresses of the pool.",
        remedy: "Delete the pods.",
    }
    DELETION_BLOCKS_CLAIMED: True "BlocksClaimed" of [TERMINATING] {
        texts: ["the deletion of the pool waits until <count> claimed blocks on <count> nodes are released: <nodes>. No address is in use, so the nodes release these blocks. If a node keeps its block, check that its agent runs: <command>"],
        cause: "Nodes have not released their blocks yet.",
        remedy: "Wait. If a node keeps its block, check its agent.",
    }
    DELETION_COOLING_DOWN: True "CoolingDown" of [TERMINATING] {
        texts: ["the deletion of the pool waits until its released addresses have cooled down, which takes up to <seconds> s. To delete the pool at once, set spec.cooldownSeconds to 0"],
        cause: "Connections to released addresses may still exist.",
        remedy: "Wait, or set `spec.cooldownSeconds` to 0.",
    }
    DELETION_FOREIGN_FINALIZER: True "ForeignFinalizer" of [TERMINATING] {
        texts: ["the deletion of the pool waits for AddressBlock <block>, because another program put a finalizer on the block. To see the finalizer, run: kubectl get addressblock <block> -o yaml"],
        cause: "Another program put a finalizer on a block.",
        remedy: "Find the program that owns the finalizer, and let it finish.",
    }
    DELETION_EMPTY: True "Empty" of [TERMINATING] {
        texts: ["the pool is being deleted and none of its addresses is in use: the operator is about to remove the pool"],
        cause: "Nothing uses the pool.",
        remedy: "None.",
    }
}

//! The catalog of error codes that shim and agent use: codes of the CNI specification 1.1.0, and Bobbin's own codes.

/// An error code. Only this module can create one, so that every code is in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Code {
    /// The number in the error object.
    pub number: u32,
    /// The name of the code in the documentation.
    pub name: &'static str,
    /// The most frequent messages with this code, with placeholders such as `<pool>`.
    pub texts: &'static [&'static str],
    /// Why a call fails with this code.
    pub cause: &'static str,
    /// What an administrator should do.
    pub remedy: &'static str,
}

/// Defines the codes: `NAME: number "Name" { texts: [...], cause: "...", remedy: "..." }`. `ALL` lists all of them.
macro_rules! codes {
    ($($id:ident: $number:literal $name:literal { texts: [$($text:literal),+ $(,)?], cause: $cause:literal, remedy: $remedy:literal $(,)? })+) => {
        $(
            #[doc = $cause]
            pub const $id: Code =
                Code { number: $number, name: $name, texts: &[$($text),+], cause: $cause, remedy: $remedy };
        )+
        /// All codes, in the order of their numbers.
        pub const ALL: &[Code] = &[$($id),+];
    };
}

codes! {
    INCOMPATIBLE_VERSION: 1 "IncompatibleVersion" {
        texts: [
            "the network configuration on stdin has no \"cniVersion\"; Bobbin supports <versions>: set one of these versions in the conflist",
            "CNI version <version> is not supported; Bobbin supports <versions>: set one of these versions as \"cniVersion\" in the conflist",
            "CNI version <version> has no <verb>: set \"cniVersion\" in the conflist to <needed> or newer",
        ],
        cause: "Bobbin does not support the CNI version in the configuration, or that CNI version does not have the called verb, for example GC.",
        remedy: "Set a supported `cniVersion` in the node's CNI configuration (chart value `cni.version`).",
    }
    CONTAINER_UNKNOWN: 3 "ContainerUnknown" {
        texts: [
            "<verb>: CNI_NETNS is <path>, which bobbin can't open: does the container still exist?",
            "the agent of node <node> could not wire <attachment>: <>the network namespace of <attachment> is gone: <error>; the runtime must create a new sandbox",
            "the agent of node <node> does not know attachment <attachment>; the runtime must call DEL and ADD",
        ],
        cause: "The container is unknown or no longer exists. After an ADD with this error, the container runtime need not call DEL.",
        remedy: "None. The container runtime creates the container again if the pod still exists.",
    }
    INVALID_ENVIRONMENT: 4 "InvalidEnvironment" {
        texts: [
            "<verb> needs environment variables that the container runtime did not set: <names>",
            "CNI_COMMAND is <word>, but must be ADD, DEL, CHECK, GC, STATUS or VERSION",
            "CNI_ARGS has the entry <entry>, which is not KEY=VALUE: the container runtime must separate the entries with semicolons",
            "CNI_NETNS <path> of <attachment> is the node's own network namespace. The runtime must set CNI_NETNS to the container's network namespace",
            "CNI_NETNS of <attachment> is <path>, but the CNI plugin found no network namespace there. The runtime must set CNI_NETNS to an existing network namespace",
        ],
        cause: "An environment variable is missing or malformed.",
        remedy: "Correct the program that calls the plugin. It is usually the container runtime or another plugin.",
    }
    IO_FAILURE: 5 "IOFailure" {
        texts: [
            "bobbin could not read the network configuration on stdin",
            "the network configuration on stdin is longer than 4 MiB, so bobbin refuses the call",
            "the agent could not write the checkpoint of attachment <attachment>: <error>. Make sure that the agent can write to <directory> on the node",
        ],
        cause: "Bobbin could not read its input or write a file.",
        remedy: "If the text names a directory, look for a full disk or a read-only file system on the node. Otherwise check what the container runtime writes to stdin.",
    }
    DECODING_FAILURE: 6 "DecodingFailure" {
        texts: [
            "<verb> got no network configuration on stdin: the container runtime must write the configuration to stdin",
            "the network configuration on stdin is not JSON (<error>): correct the conflist in /etc/cni/net.d",
        ],
        cause: "The configuration on stdin is not JSON.",
        remedy: "Correct the CNI configuration on the node. If somebody changed Bobbin's own file, the agent restores the file at once.",
    }
    INVALID_CONFIG: 7 "InvalidConfig" {
        texts: [
            "the network configuration on stdin must be a JSON object: correct the conflist",
            "<field> on stdin must be a string, but is <value>",
            "\"cni.dev/valid-attachments\" on stdin must be a JSON list",
        ],
        cause: "The configuration on stdin is JSON, but not a valid network configuration.",
        remedy: "Correct the CNI configuration on the node. If somebody changed Bobbin's own file, the agent restores the file at once.",
    }
    TRY_AGAIN_LATER: 11 "TryAgainLater" {
        texts: [
            "pool <pool> has no free address for node <node>: <count> addresses in the node's <count> blocks are in use; <why>. What to do: <remedy>. The runtime repeats the ADD",
            "<pod> gets no address: the API server has no pod of that name and UID. Either the pod was deleted or replaced, or the API server does not show it yet. If the pod still exists, the runtime's next try succeeds",
            "<pod> gets no address: the agent can't determine the pod's pool while the API server is unreachable; the runtime retries.",
            "<pod> does not get address <address> of block <block> on node <node>, because the API server did not confirm the IPAssignment in time. Without the confirmation, a pod of another node may have this address. The runtime tries again. If the ADD fails again, find out why the API server does not answer",
            "the API server refused the IPAssignment of address <address> for <attachment> on node <node>: <why>. Check ClusterRole bobbin-agent, the admission policies and AddressBlock <block>",
            "<pod> gets no address, because Bobbin is being removed from node <node> (agent.mode=remove, or label bobbin.dev/agent=remove of the Node). Use another CNI plugin on this node. To use Bobbin again instead, undo what started the removal: set agent.mode=run, or remove the label",
            "the ADD of <attachment> stopped waiting for <what>, because the runtime called DEL for the same attachment",
            "another CNI call for attachment <attachment> is still running; the runtime repeats this call",
            "the agent could not remove <what> from the kernel, so the attachment stays and the runtime calls DEL again. The reason: <why>",
            "<verb>: <why> (<socket>): the kubelet or the container runtime retries; if the error persists, check whether the bobbin-agent pod of this node is running",
        ],
        cause: "The ADD, DEL or other call failed for a reason that can be temporary. The caller should try again later.",
        remedy: "Often none, because the container runtime repeats the call. If the text names a remedy, follow it.",
    }
    NOT_AVAILABLE: 50 "NotAvailable" {
        texts: [
            "the agent of node <node> has not been ready since the node booted, because the agent has not read its Node and its blocks yet. See the log of the bobbin-agent pod on this node",
            "STATUS: <why>, and has not been ready since this node booted: check the bobbin-agent pod of this node",
        ],
        cause: "The runtime called STATUS, but the agent has not been ready at any time since the node booted.",
        remedy: "Check the agent's pod on the node and its log.",
    }
    INTERFACE_EXISTS: 100 "InterfaceExists" {
        texts: [
            "<>the container of <attachment> already has an interface <name>; delete that interface, or configure another interface name",
        ],
        cause: "Bobbin's own code (plugins may use 100 and above): the interface that ADD should create exists already.",
        remedy: "Remove the other plugin that creates this interface from the CNI configuration.",
    }
    CHECK_FAILED: 101 "CheckFailed" {
        texts: [
            "attachment <attachment> on node <node> differs from the result of ADD: <differences>. The agent repairs only the node's side. If the difference is in the container's network namespace, recreate the pod",
            "attachment <attachment> has address <address>, but the runtime's prevResult does not contain this address; the runtime must call DEL and ADD",
        ],
        cause: "Bobbin's own code: CHECK found a change in the container's network since ADD.",
        remedy: "The agent repairs the node's side. If the container's side differs, create the pod again.",
    }
    POOL_REFUSED: 102 "PoolRefused" {
        texts: [
            "<pod> gets no address: <selection> selects pool <pool>, <why>",
        ],
        cause: "Bobbin's own code: the agent refuses to use the pool that was selected for the pod. A retry alone does not help.",
        remedy: "Follow the text: correct the annotation, the pool, or the labels of the namespace or the Node.",
    }
    KERNEL_REFUSED: 103 "KernelRefused" {
        texts: [
            "the agent of node <node> could not wire <attachment>: <error>",
            "the agent of node <node> could not check attachment <attachment>: <error>",
        ],
        cause: "Bobbin's own code: the kernel refused an operation.",
        remedy: "Read the kernel's error in the text. The container runtime repeats the call.",
    }
}

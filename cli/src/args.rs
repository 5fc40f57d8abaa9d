//! The commands and their arguments.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Shows Bobbin's pools, blocks and addresses, and drains pools.
///
/// The command uses your kubeconfig and your rights.
///
/// The exit code is 0 after success, 1 after a failure, and 2 if the arguments are wrong. It is 3 if the answer is no,
/// for example because the address is in no pool, or the pod has no address.
#[derive(Parser, Debug)]
#[command(name = "kubectl-bobbin", bin_name = "kubectl bobbin", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Arguments of every command.
#[derive(Args, Debug)]
pub(crate) struct GlobalArgs {
    /// The kubeconfig. Default: the files of $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: its current context.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// The format of the output.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// The namespace of the pod. Default: the namespace of the kubeconfig's context; for agents, all namespaces.
    #[arg(short, long, global = true)]
    pub(crate) namespace: Option<String>,
    /// The namespace of Bobbin's operator and agents.
    #[arg(long, global = true, default_value = "bobbin-system", value_name = "NAMESPACE")]
    pub(crate) bobbin_namespace: String,
}

/// The format of a command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// More columns for people.
    Wide,
    /// JSON for programs.
    Json,
    /// YAML for programs.
    Yaml,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Lists pools with their used, free, cooling and reserved addresses, and their blocks.
    Pools(ListArgs),
    /// Lists the blocks and free addresses of each node, per pool.
    #[command(args_conflicts_with_subcommands = true)]
    Nodes(NodesArgs),
    /// Shows what the agent of a node knows: attachments, blocks, errors, and its contact with the API server.
    Node(NodeArgs),
    /// Compares the API objects with the agents' views, and says what is wrong and what to do.
    Check {
        /// Check only these nodes. Default: all nodes and pools.
        nodes: Vec<String>,
    },
    /// Shows which pod has an address, or why no pod has it.
    Who {
        /// An IPv4 or IPv6 address.
        address: IpAddr,
    },
    /// Shows the pool and the address of a pod, or why the pod has none.
    Explain {
        /// The name of the pod.
        pod: String,
    },
    /// Draws a pool: its blocks by node, and the addresses of each block by state.
    Map {
        /// The name of the pool.
        pool: String,
    },
    /// Stops the assignment of a pool's addresses, and waits until no pod has one.
    Drain(DrainArgs),
    /// Prints the completion script of a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Show only these. Default: all.
    pub(crate) names: Vec<String>,
    /// Print the list again after each change, until the command is interrupted.
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    /// The name of the node.
    #[arg(required_unless_present = "socket", conflicts_with = "socket")]
    pub(crate) node: Option<String>,
    /// Ask the agent on this machine at its socket, without the API server. Write the path after an equals sign.
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = "/run/bobbin/health.sock")]
    pub(crate) socket: Option<PathBuf>,
    /// Print the view again after each change, until the command is interrupted.
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct NodesArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    #[command(subcommand)]
    pub(crate) command: Option<NodesCommand>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum NodesCommand {
    /// Confirms that the machines of deleted Nodes are off, so that the operator may release their addresses.
    ConfirmDeletion(ConfirmArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ConfirmArgs {
    /// Confirm without a question.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// The name of the pool.
    pub(crate) pool: String,
    /// Evict the pods that have addresses of the pool. The API server refuses evictions that a PodDisruptionBudget forbids; the
    /// command repeats them.
    #[arg(long)]
    pub(crate) evict: bool,
    /// Also evict pods that would not come back: pods without a controller, and pods whose replacements select the pool again and
    /// get no address.
    #[arg(long, requires = "evict")]
    pub(crate) force: bool,
    /// Return after this many seconds even if addresses are in use. 0: mark the pool and return at once.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Let nodes assign the pool's addresses again, instead of draining the pool.
    #[arg(long, conflicts_with_all = ["evict", "force", "timeout"])]
    pub(crate) undo: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nodes_lists_nodes_and_confirms_deletions() {
        let parse = |args: &[&str]| Cli::try_parse_from(args).expect("the arguments are valid").command;
        assert!(
            matches!(parse(&["b", "nodes", "n1"]), Command::Nodes(NodesArgs { command: None, list }) if list.names == ["n1"])
        );
        assert!(matches!(
            parse(&["b", "nodes", "confirm-deletion", "--yes"]),
            Command::Nodes(NodesArgs { command: Some(_), .. })
        ));
    }
}

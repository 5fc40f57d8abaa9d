//! The commands and their arguments.

mod pod_name;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bobbin_process::{DurationError, parse_duration};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use pod_name::PodName;

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

impl Cli {
    /// Parses a command line. If the argument of `explain` contains a namespace, this namespace becomes the value of `--namespace`.
    ///
    /// # Errors
    /// Fails if an argument is wrong, or if two arguments contradict each other.
    pub(crate) fn read(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut cli = Self::try_parse_from(args)?;
        let conflict = |text: String| Self::command().error(ErrorKind::ArgumentConflict, text);
        if matches!(cli.command, Command::Drain(_)) && !matches!(cli.global.output, Format::Table) {
            return Err(conflict("drain prints only text: leave out --output".to_owned()));
        }
        if let Command::Explain { pod } = &cli.command {
            cli.global.namespace = pod.namespace(cli.global.namespace.as_deref()).map_err(conflict)?;
        }
        Ok(cli)
    }
}

/// The namespace of Bobbin if the user names none.
pub(crate) const DEFAULT_BOBBIN_NAMESPACE: &str = "bobbin-system";

/// Arguments of every command.
#[derive(Args, Debug)]
pub(crate) struct GlobalArgs {
    /// The kubeconfig. Default: the files of $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: its current context.
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// Act as this user. You need the right to impersonate the user.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) as_user: Option<String>,
    /// Act as a member of this group. Repeat the flag for several groups.
    #[arg(long, global = true, value_name = "GROUP")]
    pub(crate) as_group: Vec<String>,
    /// How long one call to the API server may take, for example 5s. 0: no limit.
    #[arg(long, global = true, value_name = "DURATION", value_parser = request_timeout, default_value = "30s")]
    pub(crate) request_timeout: Duration,
    /// The format of the output.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// The namespace of the pod. Default: the namespace of the kubeconfig's context.
    #[arg(short, long, global = true)]
    pub(crate) namespace: Option<String>,
    /// The namespace of Bobbin's operator and agents.
    #[arg(long, global = true, default_value = DEFAULT_BOBBIN_NAMESPACE, value_name = "NAMESPACE")]
    pub(crate) bobbin_namespace: String,
}

/// Parses a duration. Like kubectl, it takes a number without a unit as seconds.
fn seconds(text: &str) -> Result<Duration, DurationError> {
    let with_unit = if text.bytes().all(|one| one.is_ascii_digit()) { format!("{text}s") } else { text.to_owned() };
    parse_duration(&with_unit)
}

/// Parses the value of `--request-timeout`. Like kubectl, it takes 0 as no limit.
fn request_timeout(text: &str) -> Result<Duration, DurationError> {
    let limit = seconds(text)?;
    Ok(if limit.is_zero() { NO_LIMIT } else { limit })
}

/// The timeout that stands for no limit. With a much longer timeout, the time calculations of libraries could overflow.
const NO_LIMIT: Duration = Duration::from_hours(24 * 365);

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
    #[command(mut_arg("names", |names| names.value_name("POOL")))]
    Pools(ListArgs),
    /// Lists the blocks and free addresses of each node, per pool.
    #[command(args_conflicts_with_subcommands = true, mut_arg("names", |names| names.value_name("NODE")))]
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
        /// The pod: NAME, pod/NAME or NAMESPACE/NAME.
        #[arg(value_parser = pod_name::parse)]
        pod: PodName,
    },
    /// Draws a pool: its blocks by node, and the addresses of each block by state.
    Map {
        /// The name of the pool.
        pool: String,
    },
    /// Stops the assignment of a pool's addresses, and waits until no pod has one.
    Drain(DrainArgs),
    /// Serves a read-only page about pools, blocks and problems on this machine, until you press Ctrl-C.
    Dashboard(DashboardArgs),
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
    /// Return after this time even if addresses are in use, for example 60s. 0: mark the pool and return at once.
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Let nodes assign the pool's addresses again, instead of draining the pool.
    #[arg(long, conflicts_with_all = ["evict", "force", "timeout"])]
    pub(crate) undo: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DashboardArgs {
    /// The address to listen at. Only loopback addresses are accepted.
    #[arg(long, default_value = "127.0.0.1", value_parser = loopback)]
    pub(crate) address: IpAddr,
    /// The port to listen at. 0: any free port.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
}

/// Parses the address at which the dashboard listens. Only a loopback address is valid: the page shows all that the user may read, so
/// other machines must not reach the page.
fn loopback(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|error| format!("{error}"))?;
    if address.is_loopback() {
        Ok(address)
    } else {
        Err("only a loopback address is accepted, because other machines must not use your rights: use 127.0.0.1 or ::1"
            .to_owned())
    }
}

#[cfg(test)]
mod tests;

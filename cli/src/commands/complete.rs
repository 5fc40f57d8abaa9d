//! Completes command lines of `kubectl bobbin` for kubectl, which calls the executable `kubectl_complete-bobbin`.
//!
//! The arguments are the words of the command line, the last of which is to be completed. kubectl reads one candidate per
//! line, with an optional description after a tab. The last line tells the shell whether files are candidates, too.

mod words;

use std::ffi::OsString;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::Result;
use bobbin_api_client::Lenient;
use bobbin_crds::AddressPool;
use clap::{CommandFactory, FromArgMatches};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::{connection, objects};
use crate::args::{Cli, GlobalArgs};
use words::{Candidate, Names, Wanted};

/// How long the shell waits for names of objects.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The directive "the shell completes the names of files, too".
const WITH_FILES: &str = ":0";
/// The directive "the shell does not complete the names of files".
const WITHOUT_FILES: &str = ":4";

/// Prints the candidates for the last argument. Prints none if the API server does not say which objects exist, because an
/// error message would disturb the user's command line.
pub(crate) async fn run(args: Vec<OsString>) {
    let mut line: Vec<String> = args.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let word = line.pop().unwrap_or_default();
    let mut files = WITHOUT_FILES;
    let candidates = match words::wanted(&mut Cli::command(), &line, &word) {
        Wanted::Words(words) => words,
        Wanted::Files => {
            files = WITH_FILES;
            Vec::new()
        }
        Wanted::Names { names, before, prefix, given } => {
            let mut found =
                tokio::time::timeout(TIMEOUT, find(names, &line)).await.unwrap_or(Ok(Vec::new())).unwrap_or_default();
            found.retain(|name| name.starts_with(&prefix) && !given.contains(name));
            found.sort();
            found.into_iter().map(|name| Candidate { word: format!("{before}{name}"), about: String::new() }).collect()
        }
    };
    for Candidate { word, about } in candidates {
        if about.is_empty() { println!("{word}") } else { println!("{word}\t{about}") }
    }
    println!("{files}");
}

/// Reads the names of the objects of one kind, with the kubeconfig, context and namespace of the command line.
async fn find(names: Names, line: &[String]) -> Result<Vec<String>> {
    let args = global_args(line)?;
    if names == Names::Contexts {
        return Ok(connection::read_kubeconfig(&args)?.contexts.into_iter().map(|context| context.name).collect());
    }
    let connection = connection::connect(&args).await?;
    let client = connection.client;
    match names {
        Names::Pools => all::<AddressPool>(client).await,
        Names::Nodes => all::<Node>(client).await,
        Names::Namespaces => all::<Namespace>(client).await,
        Names::Pods => {
            let namespace = args.namespace.unwrap_or(connection.namespace);
            listed(&Api::<Lenient<PartialObjectMeta<Pod>>>::namespaced(client, &namespace)).await
        }
        Names::Contexts => Ok(Vec::new()),
    }
}

async fn all<K>(client: Client) -> Result<Vec<String>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    listed(&Api::<Lenient<PartialObjectMeta<K>>>::all(client)).await
}

async fn listed<K>(objects: &Api<Lenient<K>>) -> Result<Vec<String>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    Ok(objects::list(objects, "").await?.iter().map(ResourceExt::name_any).collect())
}

/// Parses the global arguments in an incomplete command line.
fn global_args(line: &[String]) -> Result<GlobalArgs> {
    let command = Cli::command().ignore_errors(true);
    let program = std::iter::once("kubectl-bobbin");
    let matches = command.try_get_matches_from(program.chain(line.iter().map(String::as_str)))?;
    Ok(GlobalArgs::from_arg_matches(&matches)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_command_line_names_context_and_namespace_anywhere() {
        let line = ["explain", "--context", "c1", "-n", "shop"].map(str::to_owned);
        let args = global_args(&line).expect("the arguments");
        assert_eq!((args.context.as_deref(), args.namespace.as_deref()), (Some("c1"), Some("shop")));
        let line = ["--context=c2", "drain"].map(str::to_owned);
        assert_eq!(global_args(&line).expect("the arguments").context.as_deref(), Some("c2"));
    }
}

//! Events, which `kubectl describe` shows to a user who asks why a pod has no address.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};

use crate::cluster::{Cluster, NAMESPACE};
use crate::wait::{Poll, wait_until};

impl Cluster {
    /// The messages of all Warning events about an object. The latest message comes last.
    pub async fn warnings_about(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        let selector = ListParams::default().fields(&format!("involvedObject.name={name},type=Warning"));
        let events = Api::<Event>::namespaced(self.client(), namespace).list(&selector).await?;
        Ok(events.items.into_iter().filter_map(|event| event.message).collect())
    }

    /// Describes nodes, pods, pools, blocks, Warning events and the last log lines of Bobbin's programs, for a failed
    /// test.
    pub fn describe_state(&self) -> String {
        let looks: [&[&str]; 5] = [
            &["get", "nodes", "-o", "wide"],
            &["get", "pods", "-A", "-o", "wide"],
            &["get", "addresspools,addressblocks"],
            &["get", "events", "-A", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"],
            &[
                "-n",
                NAMESPACE,
                "logs",
                "-l",
                "app.kubernetes.io/name=bobbin",
                "--prefix",
                "--tail=12",
                "--max-log-requests=12",
            ],
        ];
        let mut account = String::new();
        for words in looks {
            let seen = self.run_program("kubectl", words).unwrap_or_else(|error| format!("{error:#}"));
            account.extend(["\n$ kubectl ", &words.join(" "), "\n", &seen]);
        }
        account
    }

    /// Waits for a Warning event about an object. The event's message must contain all the given words. Returns the
    /// message.
    pub async fn await_warning(&self, namespace: &str, name: &str, words: &[&str], within: Duration) -> Result<String> {
        wait_until(&format!("a Warning event about {namespace}/{name} contains {words:?}"), within, || async move {
            let messages = self.warnings_about(namespace, name).await?;
            let found = messages.iter().find(|message| words.iter().all(|word| message.contains(word)));
            Ok(found.map_or_else(
                || Poll::Pending(format!("the messages of the Warning events are {messages:?}")),
                |message| Poll::Ready(message.clone()),
            ))
        })
        .await
    }
}

//! The content of `agent.json`: the node to which the checkpoint belongs, and the time when that node's agent last ran. Pure.

use std::path::PathBuf;
use std::time::Duration;

use bobbin_ipam::BootTime;
use serde::{Deserialize, Serialize};

/// The node to which a checkpoint belongs, and the time when that node's agent last ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The name of the node's Node object.
    pub node_name: String,
    /// The UID of the node's Node object. `None` if no agent has seen the Node yet.
    #[serde(rename = "nodeUID")]
    pub node_uid: Option<String>,
    /// The ID of the boot to which the times in this identity refer.
    #[serde(rename = "bootID")]
    pub boot_id: String,
    /// The last time at which the agent was running.
    pub heartbeat: BootTime,
    /// When the agent last had contact with the API server in this boot. Before the first contact, this is the time
    /// when the first failed call began. `None` if there was neither a contact nor a failed call.
    pub last_contact: Option<BootTime>,
}

impl Identity {
    /// How long no agent was running, to the precision of the heartbeat interval. Returns `None` if the identity is from another boot.
    pub fn absent_for(&self, boot_id: &str, now: BootTime) -> Option<Duration> {
        (self.boot_id == boot_id).then(|| now.since(self.heartbeat))
    }

    /// The identity to save now.
    ///
    /// While the node's blocks are not `trusted`, the result keeps the UID and the heartbeat of `self`. If the agent crashes in this time,
    /// the next agent also doubts the blocks.
    #[must_use]
    pub fn at(
        &self,
        now: BootTime,
        trusted: bool,
        node_uid: Option<String>,
        last_contact: Option<BootTime>,
    ) -> Identity {
        let mut identity = self.clone();
        identity.last_contact = last_contact.or(self.last_contact);
        if trusted {
            identity.node_uid = node_uid.or(identity.node_uid);
            identity.heartbeat = now;
        }
        identity
    }

    /// The time since `last_contact`. Returns `None` if `last_contact` is absent, or if the identity is not from the boot `boot_id`.
    pub fn without_contact_for(&self, boot_id: &str, now: BootTime) -> Option<Duration> {
        self.last_contact.filter(|_| self.boot_id == boot_id).map(|contact| now.since(contact))
    }
}

/// The content of the run directory when this agent locked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// The run directory has no checkpoint, because the node is new or was rebooted.
    Nothing,
    /// The checkpoint of an agent with the same Node name. The Node's UID may differ, so compare the UIDs before you trust any block.
    SameNode(Identity),
    /// A checkpoint without a readable identity, so the agent does not know the Node of the checkpoint. The agent keeps the checkpoint,
    /// because its addresses may be in use.
    Unknown,
    /// The checkpoint of another node. The agent has moved it to a quarantine directory and does not use it.
    OtherNode {
        /// The name of the other node.
        name: String,
        /// The path of the quarantine directory.
        quarantine: PathBuf,
    },
}

impl Previous {
    /// The identity to save until the node's blocks are trusted.
    ///
    /// The identity keeps the previous UID, because the checkpoint belongs to the Node with that UID. The identity also keeps the previous
    /// times, so that an agent that starts after a crash still sees how long no agent was running. After a reboot, the heartbeat is `now`,
    /// and the last contact is unknown.
    pub fn identity(&self, node_name: &str, boot_id: &str, now: BootTime) -> Identity {
        let previous = match self {
            Previous::SameNode(previous) => Some(previous),
            Previous::Nothing | Previous::Unknown | Previous::OtherNode { .. } => None,
        };
        Identity {
            node_name: node_name.to_owned(),
            node_uid: previous.and_then(|previous| previous.node_uid.clone()),
            boot_id: boot_id.to_owned(),
            heartbeat: previous
                .filter(|previous| previous.boot_id == boot_id)
                .map_or(now, |previous| previous.heartbeat),
            last_contact: previous
                .filter(|previous| previous.boot_id == boot_id)
                .and_then(|previous| previous.last_contact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            node_name: "n1".to_owned(),
            node_uid: Some("u1".to_owned()),
            boot_id: "b1".to_owned(),
            heartbeat: BootTime(Duration::from_secs(100)),
            last_contact: Some(BootTime(Duration::from_secs(40))),
        }
    }

    #[test]
    fn times_of_another_boot_say_nothing() {
        let now = BootTime(Duration::from_secs(130));
        assert_eq!(identity().absent_for("b1", now), Some(Duration::from_secs(30)));
        assert_eq!(identity().without_contact_for("b1", now), Some(Duration::from_secs(90)));
        assert_eq!(identity().absent_for("b2", now), None);
        assert_eq!(identity().without_contact_for("b2", now), None);
        assert_eq!(Identity { last_contact: None, ..identity() }.without_contact_for("b1", now), None);
    }

    #[test]
    fn neither_a_restart_nor_a_heartbeat_makes_doubted_blocks_look_trusted() {
        let now = BootTime(Duration::from_mins(15));
        let started = Previous::SameNode(identity()).identity("n1", "b1", now);
        assert_eq!(started, identity());
        let doubted = started.at(now, false, Some("u2".to_owned()), Some(now));
        assert_eq!(doubted, Identity { last_contact: Some(now), ..identity() });
        let trusted = doubted.at(now, true, Some("u2".to_owned()), None);
        let expected = Identity { node_uid: Some("u2".to_owned()), heartbeat: now, ..doubted };
        assert_eq!(trusted, expected);
        assert_eq!(
            trusted.at(now, true, None, None),
            expected,
            "the identity lost the Node's last UID although the agent saw no other UID"
        );
    }

    #[test]
    fn the_first_agent_of_a_boot_or_of_a_node_begins_now_and_without_a_uid_of_another_node() {
        let now = BootTime(Duration::from_secs(9));
        let rebooted = Previous::SameNode(identity()).identity("n1", "b2", now);
        assert_eq!((rebooted.heartbeat, rebooted.last_contact, rebooted.node_uid), (now, None, Some("u1".to_owned())));
        let other = Previous::OtherNode { name: "n0".to_owned(), quarantine: PathBuf::new() };
        for previous in [Previous::Nothing, Previous::Unknown, other] {
            let identity = previous.identity("n1", "b2", now);
            assert_eq!((identity.heartbeat, identity.last_contact, identity.node_uid), (now, None, None));
        }
    }

    #[test]
    fn the_file_uses_the_names_of_the_api() {
        let json = serde_json::to_value(identity()).unwrap();
        let mut names: Vec<&String> = json.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["bootID", "heartbeat", "lastContact", "nodeName", "nodeUID"]);
    }
}

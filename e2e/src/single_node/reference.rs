//! The reference plugins `ptp` and `host-local`, called on the same node and in the same way as Bobbin's plugin.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Plugin, SingleNode};

impl SingleNode {
    /// The plugin `ptp` with `host-local`, for IPv4 only or for both families.
    pub fn reference(&self, dual: bool) -> Result<Plugin> {
        let executable = self.programs.path("ptp")?;
        let path = executable.parent().map(ToOwned::to_owned).unwrap_or_default();
        let mut ranges = vec![json!([{"subnet": "10.72.0.0/16"}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if dual {
            ranges.push(json!([{"subnet": "fd00:72::/112"}]));
            routes.push(json!({"dst": "::/0"}));
        }
        let name = if dual { "reference-dual" } else { "reference" };
        let conf: Value = json!({
            "cniVersion": "1.0.0", "name": name, "type": "ptp", "mtu": 1500,
            "ipam": {"type": "host-local", "dataDir": self.path("host-local"), "ranges": ranges, "routes": routes},
        });
        Ok(Plugin { namespace: self.namespace.clone(), executable, path, environment: Vec::new(), conf })
    }
}

//! The result of ADD, in the format of each supported version of the CNI specification.

use crate::Version;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The result that ADD returns, and that the container runtime passes back in `prevResult`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddResult {
    /// The links that ADD created; the link on the host comes first.
    pub interfaces: Vec<Interface>,
    /// The addresses that ADD assigned.
    pub ips: Vec<Ip>,
    /// The routes inside the container.
    pub routes: Vec<Route>,
    /// The `dns` of an earlier plugin in the chain, unchanged. Bobbin itself sets no `dns`.
    pub dns: Map<String, Value>,
}

/// A link of the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The name of the link.
    pub name: String,
    /// The hardware address of the link.
    pub mac: Option<String>,
    /// The MTU of the link (since 1.1.0).
    pub mtu: Option<u32>,
    /// The path of the link's network namespace; `None` if the link is in the host's namespace.
    pub sandbox: Option<String>,
    /// The socket path of a device (since 1.1.0). Bobbin sets none, but passes on the path from an earlier plugin.
    pub socket_path: Option<String>,
    /// The PCI address of a device (since 1.1.0). Bobbin sets none, but passes on the address from an earlier plugin.
    pub pci_id: Option<String>,
}

/// An address of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The next hop of the default route for this address.
    pub gateway: Option<IpAddr>,
    /// The link that has the address, as an index in `interfaces`.
    pub interface: Option<usize>,
}

/// A route of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination of the route.
    pub dst: IpNet,
    /// The next hop of the route.
    pub gw: Option<IpAddr>,
    /// The MTU of the route (since 1.1.0).
    pub mtu: Option<u32>,
    /// The metric of the route (since 1.1.0).
    pub priority: Option<u32>,
}

impl AddResult {
    /// The result as JSON text for stdout.
    pub fn to_json(&self, version: Version) -> Vec<u8> {
        self.to_value(version).to_string().into_bytes()
    }

    /// The result as a JSON object.
    pub fn to_value(&self, version: Version) -> Value {
        json!({
            "cniVersion": version.text(),
            "interfaces": self.interfaces.iter().map(|interface| interface.to_value(version)).collect::<Vec<_>>(),
            "ips": self.ips.iter().map(|ip| ip.to_value(version)).collect::<Vec<_>>(),
            "routes": self.routes.iter().map(|route| route.to_value(version)).collect::<Vec<_>>(),
            "dns": self.dns,
        })
    }

    /// Parses a result of any supported version. Unknown fields are ignored.
    ///
    /// # Errors
    /// Fails with a text that names the wrong field. Messages put this text at the end of a sentence.
    pub fn from_json(value: &Value) -> Result<AddResult, String> {
        if !value.is_object() {
            return Err("it is not an object".to_owned());
        }
        Ok(AddResult {
            interfaces: list(value, "interfaces")?.iter().map(Interface::from_json).collect::<Result<_, _>>()?,
            ips: list(value, "ips")?.iter().map(Ip::from_json).collect::<Result<_, _>>()?,
            routes: list(value, "routes")?.iter().map(Route::from_json).collect::<Result<_, _>>()?,
            dns: value.get("dns").and_then(Value::as_object).cloned().unwrap_or_default(),
        })
    }
}

impl Interface {
    fn to_value(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("name".into(), json!(self.name));
        put(&mut object, "mac", self.mac.as_ref());
        put(&mut object, "sandbox", self.sandbox.as_ref());
        if version >= Version::V1_1_0 {
            put(&mut object, "mtu", self.mtu);
            put(&mut object, "socketPath", self.socket_path.as_ref());
            put(&mut object, "pciID", self.pci_id.as_ref());
        }
        Value::Object(object)
    }

    fn from_json(value: &Value) -> Result<Interface, String> {
        Ok(Interface {
            name: text(value, "interfaces", "name")?.unwrap_or_default(),
            mac: text(value, "interfaces", "mac")?,
            mtu: number(value, "interfaces", "mtu")?,
            sandbox: text(value, "interfaces", "sandbox")?,
            socket_path: text(value, "interfaces", "socketPath")?,
            pci_id: text(value, "interfaces", "pciID")?,
        })
    }
}

impl Ip {
    fn to_value(&self, version: Version) -> Value {
        let mut object = Map::new();
        if version < Version::V1_0_0 {
            object.insert("version".into(), json!(if self.address.addr().is_ipv4() { "4" } else { "6" }));
        }
        put(&mut object, "interface", self.interface);
        object.insert("address".into(), json!(self.address.to_string()));
        put(&mut object, "gateway", self.gateway.map(|gateway| gateway.to_string()));
        Value::Object(object)
    }

    fn from_json(value: &Value) -> Result<Ip, String> {
        let address = text(value, "ips", "address")?.ok_or("an entry of \"ips\" has no \"address\"")?;
        Ok(Ip {
            address: parse(&address, "address")?,
            gateway: text(value, "ips", "gateway")?.map(|gateway| parse(&gateway, "gateway")).transpose()?,
            // Some plugins write a negative index if no interface has the address. Such an index becomes `None`.
            interface: value.get("interface").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok()),
        })
    }
}

impl Route {
    /// Creates a route without MTU and metric.
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Route {
        Route { dst, gw, mtu: None, priority: None }
    }

    fn to_value(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("dst".into(), json!(self.dst.to_string()));
        put(&mut object, "gw", self.gw.map(|gw| gw.to_string()));
        if version >= Version::V1_1_0 {
            put(&mut object, "mtu", self.mtu);
            put(&mut object, "priority", self.priority);
        }
        Value::Object(object)
    }

    fn from_json(value: &Value) -> Result<Route, String> {
        let dst = text(value, "routes", "dst")?.ok_or("an entry of \"routes\" has no \"dst\"")?;
        Ok(Route {
            dst: parse(&dst, "dst")?,
            gw: text(value, "routes", "gw")?.map(|gw| parse(&gw, "gw")).transpose()?,
            mtu: number(value, "routes", "mtu")?,
            priority: number(value, "routes", "priority")?,
        })
    }
}

fn put(object: &mut Map<String, Value>, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), json!(value));
    }
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], String> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(format!("{name:?} is not a list")),
    }
}

fn text(value: &Value, of: &str, name: &str) -> Result<Option<String>, String> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name:?} in an entry of {of:?} is not a string")),
    }
}

fn number(value: &Value, of: &str, name: &str) -> Result<Option<u32>, String> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| format!("{name:?} in an entry of {of:?} is not a number")),
    }
}

fn parse<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name:?} is {text:?}, which is not a valid address"))
}

#[cfg(test)]
mod tests;

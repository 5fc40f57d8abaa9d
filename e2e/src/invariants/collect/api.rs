//! Reads the API objects. Decodes only the fields that the rules compare, so that an unexpected value in another field
//! does not hide the object.

use std::net::IpAddr;

use anyhow::{Context, Result};
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use bobbin_ipam::AttachmentKey;
use ipnet::IpNet;
use k8s_openapi::api::core::v1;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Resource, ResourceExt};
use serde_json::Value;

use crate::invariants::snapshot::{AcceptedSubnet, AddressCounts, ApiObjects, Assignment, Block, Pod, PodId, Pool};

/// The annotation with the UID of a static pod. The kubelet sets this annotation on the static pod's mirror pod.
const STATIC_POD_UID: &str = "kubernetes.io/config.hash";

pub(super) async fn read(client: &kube::Client) -> Result<ApiObjects> {
    Ok(ApiObjects {
        pools: list::<AddressPool>(client).await?.iter().map(pool).collect(),
        blocks: list::<AddressBlock>(client).await?.iter().map(block).collect(),
        assignments: list::<IPAssignment>(client).await?.iter().map(assignment).collect(),
        pods: list::<v1::Pod>(client).await?.iter().map(pod).collect(),
        nodes: list::<v1::Node>(client).await?.iter().map(|node| (node.name_any(), uid(node))).collect(),
    })
}

async fn list<K: Resource<DynamicType = ()>>(client: &kube::Client) -> Result<Vec<DynamicObject>> {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    Ok(api.list(&ListParams::default()).await.with_context(|| resource.plural.clone())?.items)
}

fn uid(object: &DynamicObject) -> String {
    object.metadata.uid.clone().unwrap_or_default()
}

fn text(value: &Value, path: &str) -> Option<String> {
    value.pointer(path).and_then(Value::as_str).map(str::to_owned)
}

fn number(value: &Value, path: &str) -> i64 {
    value.pointer(path).and_then(Value::as_i64).unwrap_or_default()
}

fn elements<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn ranges(value: &Value) -> Vec<IpNet> {
    ["/ipv4", "/ipv6"].iter().filter_map(|family| text(value, family)?.parse().ok()).collect()
}

fn addresses(value: &Value) -> Vec<IpAddr> {
    ["/ipv4", "/ipv6"].iter().filter_map(|family| text(value, family)?.parse().ok()).collect()
}

fn pool(object: &DynamicObject) -> Pool {
    let data = &object.data;
    let entries = elements(data, "/status/acceptedSubnets").iter();
    let counts = [("IPv4", "/status/addresses/ipv4"), ("IPv6", "/status/addresses/ipv6")];
    Pool {
        name: object.name_any(),
        status_is_current: data.pointer("/status/observedGeneration").and_then(Value::as_i64)
            == object.metadata.generation,
        block_size_bits: u32::try_from(number(data, "/spec/blockSizeBits")).unwrap_or_default(),
        accepted: entries
            .filter(|entry| entry["state"] == "Accepted")
            .map(|entry| AcceptedSubnet { ranges: ranges(entry), first_index: entry["firstIndex"].as_u64() })
            .collect(),
        counts: counts
            .into_iter()
            .filter_map(|(family, path)| Some((family, address_counts(data.pointer(path)?))))
            .collect(),
        used: number(data, "/status/used"),
        free: number(data, "/status/free"),
        claimed_blocks: number(data, "/status/blocks/claimed"),
    }
}

fn address_counts(counts: &Value) -> AddressCounts {
    AddressCounts {
        total: number(counts, "/total"),
        reserved: number(counts, "/reserved"),
        assigned: number(counts, "/assigned"),
        cooling: number(counts, "/cooling"),
        free: number(counts, "/free"),
    }
}

fn block(object: &DynamicObject) -> Block {
    let spec = &object.data["spec"];
    Block {
        name: object.name_any(),
        pool: text(spec, "/poolName").unwrap_or_default(),
        ranges: ranges(spec),
        node: text(spec, "/nodeName"),
        node_uid: text(spec, "/nodeUID"),
    }
}

fn assignment(object: &DynamicObject) -> Assignment {
    let spec = &object.data["spec"];
    let field = |path| text(spec, path).unwrap_or_default();
    Assignment {
        name: object.name_any(),
        pool: field("/poolName"),
        block: field("/blockName"),
        node: field("/nodeName"),
        addresses: addresses(spec),
        attachment: AttachmentKey::new(field("/containerID"), field("/ifName")),
        pod: PodId { namespace: field("/podNamespace"), name: field("/podName"), uid: field("/podUID") },
    }
}

fn pod(object: &DynamicObject) -> Pod {
    let data = &object.data;
    let phase = text(data, "/status/phase").unwrap_or_default();
    let static_uid = object.annotations().get(STATIC_POD_UID).cloned();
    Pod {
        id: PodId {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: static_uid.unwrap_or_else(|| uid(object)),
        },
        node: text(data, "/spec/nodeName"),
        addresses: elements(data, "/status/podIPs").iter().filter_map(|ip| text(ip, "/ip")?.parse().ok()).collect(),
        host_network: data.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or_default(),
        ended: matches!(phase.as_str(), "Succeeded" | "Failed"),
    }
}

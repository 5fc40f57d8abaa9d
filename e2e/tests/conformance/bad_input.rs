//! A CNI call with invalid stdin, environment variables, version or network namespace fails with a one-line error and
//! leaves nothing behind.

use anyhow::{Result, ensure};
use bobbin_e2e::single_node::{Call, CniError, SingleNode};
use serde_json::{Value, json};

use super::nothing_is_left;

fn sentence(error: &CniError, code: u64, word: &str) -> Result<()> {
    ensure!(error.code == code, "the error must have code {code}: {error:?}");
    ensure!(
        error.text.contains(word) && !error.text.contains('\n'),
        "the error must be one line and contain {word:?}: {error:?}"
    );
    Ok(())
}

pub async fn stdin(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    for (stdin, code, word) in [
        ("", 6, "stdin"),
        ("{", 6, "stdin"),
        ("[]", 7, "object"),
        (r#"{"cniVersion":"1.1.0"}"#, 7, "name"),
        (r#"{"cniVersion":"1.1.0","name":"bobbin","type":"bobbin","prevResult":5}"#, 7, "prevResult"),
    ] {
        let call = Call { stdin: Some(stdin.as_bytes().to_vec()), ..pod.call("ADD") };
        sentence(&node.call(&call)?.error()?, code, word)?;
    }
    nothing_is_left(node, &pod.container_id).await
}

pub async fn environment(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let add = || pod.call("ADD");
    for (call, word) in [
        (Call { verb: "", ..add() }, "CNI_COMMAND"),
        (Call { verb: "FETCH", ..add() }, "CNI_COMMAND"),
        (Call { container_id: String::new(), ..add() }, "CNI_CONTAINERID"),
        (Call { container_id: "../../etc".to_owned(), ..add() }, "CNI_CONTAINERID"),
        (Call { if_name: String::new(), ..add() }, "CNI_IFNAME"),
        (Call { if_name: "a-name-that-is-too-long".to_owned(), ..add() }, "CNI_IFNAME"),
        (Call { if_name: "a/b".to_owned(), ..add() }, "CNI_IFNAME"),
        (Call { netns: None, ..add() }, "CNI_NETNS"),
        (add().args("K8S_POD_NAME"), "CNI_ARGS"),
    ] {
        sentence(&node.call(&call)?.error()?, 4, word)?;
    }
    nothing_is_left(node, &pod.container_id).await
}

pub async fn version(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    for version in [json!("2.0.0"), json!("0.2.0"), Value::Null] {
        let error = node.call(&pod.call("ADD").with("cniVersion", version))?.error()?;
        sentence(&error, 1, "0.3.1, 0.4.0, 1.0.0 and 1.1.0")?;
    }
    nothing_is_left(node, &pod.container_id).await
}

pub async fn namespace(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let missing = Call { netns: Some(node.path("netns/none")), ..pod.call("ADD") };
    sentence(&node.call(&missing)?.error()?, 3, "netns/none")?;
    let file = node.path("a-file");
    std::fs::write(&file, "")?;
    let error = node.call(&Call { netns: Some(file), ..pod.call("ADD") })?.error()?;
    sentence(&error, 3, "the runtime must create a new sandbox")?;
    let own = Call { netns: Some(node.namespace.path()), ..pod.call("ADD") };
    let error = node.call(&own)?.error()?;
    sentence(&error, 4, "is the node's own network namespace")?;
    nothing_is_left(node, &pod.container_id).await
}

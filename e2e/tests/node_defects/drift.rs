//! Another program changes Bobbin's rules, routes, neighbours, sysctls, links and filter. It makes the changes while
//! the agent is running and while the agent is stopped. One test makes changes faster than the agent can read
//! the netlink notifications.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bobbin_e2e::control_plane::Process;
use bobbin_e2e::single_node::{Sandbox, SingleNode, WAIT_TIMEOUT, ip_json};
use bobbin_e2e::wait::{Poll, check, wait_until};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::{await_reconcile, end, link_of, metrics_endpoint};

/// Wrong values for the sysctls of a host link and for the forwarding sysctls of the node.
const WRONG_SYSCTLS: [(&str, &str); 6] = [
    ("ipv4/conf/LINK/proxy_arp", "1"),
    ("ipv4/conf/LINK/forwarding", "0"),
    ("ipv6/conf/LINK/forwarding", "0"),
    ("ipv6/conf/LINK/disable_ipv6", "1"),
    ("ipv4/ip_forward", "0"),
    ("ipv6/conf/all/forwarding", "0"),
];
/// The number of foreign routes that another program adds and removes in each round of a storm.
const STORM_ROUTES: usize = 2000;
/// The minimum length of a storm.
const STORM_TIME: Duration = Duration::from_secs(8);
/// How long the agent waits after a notification before it starts a reconcile pass. So two passes are at least this far
/// apart.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// How often each reconcile pass lists the rules (RTM_GETRULE). In each of the two families, it lists them once for the
/// repair and once for the search for conflicts. No other work lists them.
const RULE_LISTS_PER_PASS: usize = 4;
/// A time that is shorter than the interval of the agent's regular reconcile passes. A repair within this time did not
/// wait for the next regular pass.
const BEFORE_THE_NEXT_PASS: Duration = Duration::from_secs(40);

/// Bobbin's objects in the kernel. The map has one text for each kind of object.
type Objects = BTreeMap<&'static str, String>;

fn objects(node: &SingleNode, link: &str) -> Result<Objects> {
    let mut seen = Objects::new();
    for (name, table) in [("pod table", 116), ("export table", 119)] {
        let mut routes = node.table(table)?;
        routes.sort();
        seen.insert(name, format!("{routes:?}"));
    }
    for (name, list) in [("IPv4 rules", "-4 rule show"), ("IPv6 rules", "-6 rule show")] {
        let rules = ip_json(&node.namespace, list)?;
        let own = rules.as_array().into_iter().flatten().filter(|rule| rule["priority"] == 2000);
        seen.insert(name, own.map(ToString::to_string).collect());
    }
    let neighbours = ip_json(&node.namespace, &format!("neigh show nud permanent dev {link}"))?;
    let mut neighbours: Vec<String> = neighbours.as_array().into_iter().flatten().map(Value::to_string).collect();
    neighbours.sort();
    seen.insert("neighbours", neighbours.concat());
    let of_link = ip_json(&node.namespace, &format!("link show {link}"))?;
    let up = of_link[0]["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
    let fields = ["address", "group", "ifalias"].map(|field| of_link[0][field].to_string());
    seen.insert("link", format!("{fields:?} up {up}"));
    let sysctls = WRONG_SYSCTLS.map(|(path, _)| path.replace("LINK", link));
    let values =
        node.namespace.run(move || sysctls.map(|path| std::fs::read_to_string(format!("/proc/sys/net/{path}"))))?;
    seen.insert("sysctls", values.into_iter().collect::<std::io::Result<String>>()?.replace('\n', " "));
    let filter = node.namespace.command("nft").args(["list", "table", "inet", "bobbin"]).output()?;
    seen.insert("filter", String::from_utf8_lossy(&filter.stdout).into_owned());
    Ok(seen)
}

/// Changes every kernel object of Bobbin that [`objects`] returns.
fn change_all(node: &SingleNode, link: &str) -> Result<()> {
    let paths = WRONG_SYSCTLS.map(|(path, value)| (format!("/proc/sys/net/{}", path.replace("LINK", link)), value));
    node.namespace.run(move || paths.into_iter().try_for_each(|(path, value)| std::fs::write(path, value)))??;
    for command in [
        "ip -4 route flush table 116",
        "ip -6 route flush table 116",
        "ip -4 route flush table 119",
        "ip -6 route flush table 119",
        "ip -4 rule del priority 2000",
        "ip -6 rule del priority 2000",
        &format!("ip neigh flush nud permanent dev {link}"),
        &format!("ip link set {link} down"),
        &format!("ip link set {link} address 02:00:00:00:00:99"),
        &format!("ip link set {link} group 7"),
        "nft flush table inet bobbin",
    ] {
        let (program, arguments) = command.split_once(' ').context("the command has no arguments")?;
        let output = node.namespace.command(program).args(arguments.split(' ')).output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

async fn await_restored(node: &SingleNode, link: &str, wanted: &Objects, timeout: Duration) -> Result<()> {
    wait_until("the agent has restored all of Bobbin's objects in the kernel", timeout, || async {
        let seen = objects(node, link)?;
        let wrong: Vec<_> = wanted
            .iter()
            .filter(|(kind, text)| seen.get(*kind) != Some(text))
            .map(|(kind, text)| (kind, text, &seen[kind]))
            .collect();
        Ok(if wrong.is_empty() { Poll::Ready(()) } else { Poll::Pending(format!("{wrong:?}")) })
    })
    .await
    .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))
}

pub async fn restored(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    await_reconcile(node).await?;
    let link = link_of(node, &pod)?;
    let wanted = objects(node, &link)?;
    ensure!(wanted.values().all(|text| !text.is_empty()), "{wanted:?}");

    change_all(node, &link)?;
    ensure!(
        objects(node, &link)?.iter().all(|(kind, text)| wanted[kind] != *text),
        "the test did not change every object"
    );
    await_restored(node, &link, &wanted, BEFORE_THE_NEXT_PASS)
        .await
        .context("the running agent did not restore its objects")?;
    node.call(&pod.check(&result))?.ok().context("CHECK failed after the repair")?;

    node.kill_agent();
    change_all(node, &link)?;
    node.start_agent().await?;
    await_restored(node, &link, &wanted, BEFORE_THE_NEXT_PASS)
        .await
        .context("the restarted agent did not restore its objects")?;
    node.call(&pod.check(&result))?.ok().context("CHECK failed after the agent's start")?;
    end(node, vec![pod], &[]).await
}

/// Lines for `ip -batch` that add or remove foreign routes in Bobbin's own table. The kernel sends the agent a notification
/// of each change.
fn foreign_routes(verb: &str) -> String {
    (0..STORM_ROUTES).fold(String::new(), |mut lines, number| {
        let (third, fourth) = (number / 256, number % 256);
        let _ = writeln!(lines, "route {verb} 198.18.{third}.{fourth}/32 via 10.100.0.254 proto 12 table 116");
        lines
    })
}

fn ipv4(pod: &Sandbox) -> Result<String> {
    let addresses = pod.addresses()?;
    Ok(addresses.iter().find(|address| address.is_ipv4()).context("the pod has no IPv4 address")?.to_string())
}

async fn await_route(node: &SingleNode, address: &str) -> Result<()> {
    wait_until("the agent has restored the pod's route", BEFORE_THE_NEXT_PASS, || async {
        let there = node.table(116)?.iter().any(|(dst, _)| dst == address);
        Ok(check(there, || "the route is missing".to_owned()))
    })
    .await
    .with_context(|| format!("the end of the agent's log:\n{}", node.agent_log_tail()))
}

pub async fn overrun(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    node.add(&pod)?;
    await_reconcile(node).await?;
    let address = ipv4(&pod)?;
    let agent = node.agent_pid()?;
    kill(agent, Signal::SIGSTOP)?;
    // The agent is stopped and reads no notifications. So the buffer of its socket overruns, and the notification about the pod's
    // route is lost.
    for _ in 0..10 {
        node.namespace.ip(&foreign_routes("add"))?;
        node.namespace.ip(&foreign_routes("del"))?;
    }
    let dropped = node.namespace.run(dropped_notifications)??;
    node.namespace.ip(&format!("route del {address}/32 table 116"))?;
    let lost = node.namespace.run(dropped_notifications)??;
    kill(agent, Signal::SIGCONT)?;
    ensure!(
        lost > dropped && dropped > 0,
        "the kernel did not lose the notification of the route: {dropped} notifications were lost before it, and {lost} after it"
    );
    await_route(node, &address).await?;
    node.agent_must_run()?;
    end(node, vec![pod], &[]).await
}

/// Counts the netlink messages that the sockets of this network namespace have lost.
fn dropped_notifications() -> Result<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/netlink").context("/proc/net/netlink")?;
    let drops = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    Ok(drops.sum())
}

pub async fn storm(node: &mut SingleNode) -> Result<()> {
    let pod = node.sandbox()?;
    let result = node.add(&pod)?;
    await_reconcile(node).await?;
    let address = ipv4(&pod)?;
    let log = node.path("storm-strace.log");
    let arguments = ["-f", "-etrace=sendto,sendmsg", "-s64", &format!("-p{}", node.agent_pid()?)].map(str::to_owned);
    let strace = Process::start(Path::new("strace"), Some(&node.namespace.path()), &log, arguments)?;
    let text = || String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
    wait_until("strace is attached to the agent", WAIT_TIMEOUT, || async {
        Ok(check(text().contains(" attached"), text))
    })
    .await?;
    let repairs = metrics_endpoint::metric(node, "bobbin_agent_datapath_repairs_total")?;
    let (start, mut removed) = (Instant::now(), 0_u32);
    let mut changes = 0;
    while start.elapsed() < STORM_TIME {
        node.namespace.ip(&foreign_routes("add"))?;
        // Table 116 changes while the agent is listing it, so the kernel interrupts the list.
        if node.table(116)?.iter().any(|(dst, _)| *dst == address) {
            node.namespace.ip(&format!("route del {address}/32 table 116"))?;
            removed += 1;
        }
        node.namespace.ip(&foreign_routes("del"))?;
        changes += 2 * STORM_ROUTES;
    }
    await_route(node, &address).await?;
    let took = start.elapsed();
    let lists_rules = |line: &&str| line.contains("RTM_GETRULE") || line.contains("nlmsg_type=0x22");
    let passes = text().lines().filter(lists_rules).count() / RULE_LISTS_PER_PASS;
    drop(strace);
    let repaired = metrics_endpoint::metric(node, "bobbin_agent_datapath_repairs_total")? - repairs;
    println!(
        "{changes} foreign changes in {took:?} caused {passes} reconcile passes; the test removed the pod's route {removed} times, and the agent repaired it {repaired} times"
    );
    let most = took.as_millis() / DEBOUNCE.as_millis() + 2;
    ensure!(
        passes as u128 <= most,
        "the agent made {passes} passes in {took:?}, which is more than one pass in {DEBOUNCE:?}"
    );
    ensure!(
        removed > 0 && (repaired - f64::from(removed)).abs() < 0.5,
        "the test removed the route {removed} times, but the agent counted {repaired} repairs"
    );
    node.call(&pod.check(&result))?.ok().context("CHECK failed after the storm")?;
    ensure!(
        !node.table(116)?.iter().any(|(dst, _)| dst.starts_with("198.18.")),
        "a foreign route still exists after the storm"
    );
    end(node, vec![pod], &[]).await
}

//! Drops notices that can't concern us in the kernel, by a classic BPF program on the monitor's socket: a node that
//! imports a routing table by BGP wakes nobody with it. Pure but for [`attach`].

use std::os::fd::AsFd;

use socket2::{SockFilter, SockRef};

use crate::route::MAIN;
use crate::settings::Settings;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const PERMANENT: u32 = 0x80;
/// The kernel shows a table above 255 as this one in the fixed part; the attribute that tells more is read later.
const LARGE_TABLE: u32 = 252;

/// Where the fields are in a notice: the header has 16 bytes, the fixed part follows.
const KIND: u32 = 4;
const PORT: u32 = 12;
const ROUTE_TABLE: u32 = 20;
const ROUTE_PROTOCOL: u32 = 21;
/// The byte of the two that holds the flag [`PERMANENT`].
const NEIGHBOUR_STATE: u32 = if cfg!(target_endian = "little") { 24 } else { 25 };

/// One instruction, its jumps as absolute targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    LoadByte(u32),
    LoadHalf(u32),
    LoadWord(u32),
    JumpIfEqual(u32, usize, usize),
    JumpIfSet(u32, usize, usize),
    Return(u32),
}

/// A number of the notice as BPF loads it: always in network byte order.
fn loaded(number: u16) -> u32 {
    u32::from(u16::from_be_bytes(number.to_ne_bytes()))
}

/// Passes what the monitor looks at: links, rules, permanent neighbours that go, and routes that a program changed in
/// our tables or under our protocol in the main table.
fn program(settings: &Settings) -> Vec<Step> {
    const NEIGHBOUR: usize = 5;
    const ROUTE: usize = 7;
    const TABLES: usize = 10;
    let tables: Vec<u32> =
        [settings.pod_table, settings.export_table].map(|table| if table > 255 { LARGE_TABLE } else { table }).to_vec();
    let main = TABLES + tables.len();
    let (pass, stop) = (main + 3, main + 4);
    let mut steps = vec![
        Step::LoadHalf(KIND),
        Step::JumpIfEqual(loaded(NEW_ROUTE), ROUTE, 2),
        Step::JumpIfEqual(loaded(DELETE_ROUTE), ROUTE, 3),
        Step::JumpIfEqual(loaded(NEW_NEIGHBOUR), stop, 4),
        Step::JumpIfEqual(loaded(DELETE_NEIGHBOUR), NEIGHBOUR, pass),
        Step::LoadByte(NEIGHBOUR_STATE),
        Step::JumpIfSet(PERMANENT, pass, stop),
        // The kernel's own changes follow from links that come and go.
        Step::LoadWord(PORT),
        Step::JumpIfEqual(0, stop, TABLES - 1),
        Step::LoadByte(ROUTE_TABLE),
    ];
    steps.extend(tables.iter().enumerate().map(|(at, table)| Step::JumpIfEqual(*table, pass, TABLES + at + 1)));
    steps.extend([
        Step::JumpIfEqual(MAIN, main + 1, stop),
        Step::LoadByte(ROUTE_PROTOCOL),
        Step::JumpIfEqual(u32::from(settings.direct_protocol), pass, stop),
        Step::Return(u32::MAX),
        Step::Return(0),
    ]);
    steps
}

fn assemble(steps: &[Step]) -> Vec<SockFilter> {
    let code = |(at, step): (usize, &Step)| {
        let jump = |target: usize| u8::try_from(target - at - 1).unwrap_or(u8::MAX);
        match *step {
            Step::LoadByte(offset) => SockFilter::new(0x30, 0, 0, offset),
            Step::LoadHalf(offset) => SockFilter::new(0x28, 0, 0, offset),
            Step::LoadWord(offset) => SockFilter::new(0x20, 0, 0, offset),
            Step::JumpIfEqual(value, yes, no) => SockFilter::new(0x15, jump(yes), jump(no), value),
            Step::JumpIfSet(bits, yes, no) => SockFilter::new(0x45, jump(yes), jump(no), bits),
            Step::Return(length) => SockFilter::new(0x06, 0, 0, length),
        }
    };
    steps.iter().enumerate().map(code).collect()
}

/// Attaches the filter to a socket that hears rtnetlink's notices.
pub(crate) fn attach(socket: impl AsFd, settings: &Settings) -> std::io::Result<()> {
    SockRef::from(&socket).attach_filter(&assemble(&program(settings)))
}

#[cfg(test)]
mod tests;

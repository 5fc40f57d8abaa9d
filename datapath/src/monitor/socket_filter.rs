//! A classic BPF program on the socket for netlink notifications. It makes the kernel drop notifications that can't
//! concern Bobbin.
//!
//! Without this filter, thousands of route notifications would wake the agent on a node that imports routes over BGP.

use std::os::fd::AsFd;

use nix::libc;
use socket2::{SockFilter, SockRef};

use crate::netlink::route::MAIN;
use crate::settings::Settings;

/// The value that the kernel writes into `rtm_table` for each table number above 255. The filter can't tell these
/// tables apart, so the monitor reads the real table number from the attribute `RTA_TABLE`.
const LARGE_TABLE: u32 = libc::RT_TABLE_COMPAT as u32;
const MAX_SMALL_TABLE: u32 = 255;

// Byte offsets of the fields that the filter reads. The header `nlmsghdr` takes 16 bytes. Then comes the
// header of the message kind, for example `rtmsg`.
const KIND_OFFSET: u32 = 4;
const PORT_OFFSET: u32 = 12;
const ROUTE_TABLE_OFFSET: u32 = 20;
const ROUTE_PROTOCOL_OFFSET: u32 = 21;
/// The offset of the byte that contains the flag `NUD_PERMANENT`. The byte is one of the two bytes of `ndm_state`.
const NEIGHBOUR_STATE_OFFSET: u32 = if cfg!(target_endian = "little") { 24 } else { 25 };

/// One BPF instruction. A jump has two target indices: the program continues at the first if the condition is true, and
/// otherwise at the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    LoadByte(u32),
    LoadHalf(u32),
    LoadWord(u32),
    JumpIfEqual(u32, usize, usize),
    JumpIfSet(u32, usize, usize),
    Return(u32),
}

/// The value that BPF loads from a two-byte field that holds `number`. The kernel writes the field in host byte order,
/// and BPF loads it in network byte order.
fn loaded(number: u16) -> u32 {
    u32::from(u16::from_be_bytes(number.to_ne_bytes()))
}

/// Builds the filter program. It accepts notifications about links, rules and removed permanent neighbours. Of the
/// routes that a program (not the kernel) changed, the filter accepts direct routes and the routes in Bobbin's tables.
fn program(settings: &Settings) -> Vec<Step> {
    const NEIGHBOUR: usize = 5;
    const ROUTE: usize = 7;
    const TABLES: usize = 10;
    let tables: Vec<u32> = [settings.pod_table, settings.export_table]
        .map(|table| if table > MAX_SMALL_TABLE { LARGE_TABLE } else { table })
        .to_vec();
    let main = TABLES + tables.len();
    let (pass, reject) = (main + 3, main + 4);
    let mut steps = vec![
        Step::LoadHalf(KIND_OFFSET),
        Step::JumpIfEqual(loaded(libc::RTM_NEWROUTE), ROUTE, 2),
        Step::JumpIfEqual(loaded(libc::RTM_DELROUTE), ROUTE, 3),
        Step::JumpIfEqual(loaded(libc::RTM_NEWNEIGH), reject, 4),
        Step::JumpIfEqual(loaded(libc::RTM_DELNEIGH), NEIGHBOUR, pass),
        Step::LoadByte(NEIGHBOUR_STATE_OFFSET),
        Step::JumpIfSet(u32::from(libc::NUD_PERMANENT), pass, reject),
        // Reject routes that the kernel itself changed (port 0). The kernel changes routes only when a link changes,
        // and sends a separate notification about the link.
        Step::LoadWord(PORT_OFFSET),
        Step::JumpIfEqual(0, reject, TABLES - 1),
        Step::LoadByte(ROUTE_TABLE_OFFSET),
    ];
    steps.extend(tables.iter().enumerate().map(|(at, table)| Step::JumpIfEqual(*table, pass, TABLES + at + 1)));
    steps.extend([
        Step::JumpIfEqual(MAIN, main + 1, reject),
        Step::LoadByte(ROUTE_PROTOCOL_OFFSET),
        Step::JumpIfEqual(u32::from(settings.direct_protocol), pass, reject),
        Step::Return(u32::MAX),
        Step::Return(0),
    ]);
    steps
}

fn assemble(steps: &[Step]) -> Vec<SockFilter> {
    let load = |size: u32, offset| instruction(libc::BPF_LD | libc::BPF_ABS | size, 0, 0, offset);
    let assembled = |(at, step): (usize, &Step)| {
        let distance = |target: usize| u8::try_from(target - at - 1).unwrap_or(u8::MAX);
        let jump = |condition: u32, yes, no, value| {
            instruction(libc::BPF_JMP | libc::BPF_K | condition, distance(yes), distance(no), value)
        };
        match *step {
            Step::LoadByte(offset) => load(libc::BPF_B, offset),
            Step::LoadHalf(offset) => load(libc::BPF_H, offset),
            Step::LoadWord(offset) => load(libc::BPF_W, offset),
            Step::JumpIfEqual(value, yes, no) => jump(libc::BPF_JEQ, yes, no, value),
            Step::JumpIfSet(bits, yes, no) => jump(libc::BPF_JSET, yes, no, bits),
            Step::Return(length) => instruction(libc::BPF_RET | libc::BPF_K, 0, 0, length),
        }
    };
    steps.iter().enumerate().map(assembled).collect()
}

fn instruction(code: u32, yes: u8, no: u8, value: u32) -> SockFilter {
    SockFilter::new(code as u16, yes, no, value)
}

/// Attaches the filter program to a socket that receives notifications about links and routes.
pub(super) fn attach(socket: impl AsFd, settings: &Settings) -> std::io::Result<()> {
    SockRef::from(&socket).attach_filter(&assemble(&program(settings)))
}

#[cfg(test)]
mod tests;

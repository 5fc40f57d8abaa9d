use rtnetlink::packet_core::{Emitable, NetlinkHeader};

use super::*;

/// Interprets the filter program as the kernel does, and returns whether the program accepts the notification.
fn passes(settings: &Settings, notification: &[u8]) -> bool {
    let steps = program(settings);
    let (mut at, mut loaded) = (0, 0u32);
    let load = |offset: u32, length: usize| {
        notification[offset as usize..][..length].iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte))
    };
    loop {
        match steps[at] {
            Step::LoadByte(offset) => loaded = load(offset, 1),
            Step::LoadHalf(offset) => loaded = load(offset, 2),
            Step::LoadWord(offset) => loaded = load(offset, 4),
            Step::JumpIfEqual(value, yes, no) => {
                at = if loaded == value { yes } else { no };
                continue;
            }
            Step::JumpIfSet(bits, yes, no) => {
                at = if loaded & bits != 0 { yes } else { no };
                continue;
            }
            Step::Return(length) => return length > 0,
        }
        at += 1;
    }
}

fn notification(kind: u16, port: u32, fixed: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    header.port_number = port;
    header.length = u32::try_from(header.buffer_len() + fixed.len()).unwrap();
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes);
    bytes.extend_from_slice(fixed);
    bytes
}

fn route(kind: u16, port: u32, table: u8, protocol: u8) -> Vec<u8> {
    notification(kind, port, &[2, 24, 0, 0, table, protocol, 0, 1, 0, 0, 0, 0])
}

fn neighbour(kind: u16, state: u16) -> Vec<u8> {
    let mut fixed = [0; 12];
    fixed[8..10].copy_from_slice(&state.to_ne_bytes());
    notification(kind, 77, &fixed)
}

#[test]
fn only_routes_that_could_be_bobbins_pass() {
    let settings = Settings::default();
    for kind in [libc::RTM_NEWROUTE, libc::RTM_DELROUTE] {
        for (port, table, protocol, expected) in [
            (77, 116, 30, true),
            (77, 116, 99, true),
            (77, 119, 30, true),
            (77, 254, 31, true),
            (77, 254, 30, false),
            (77, 254, 186, false),
            (77, 254, 12, false),
            (77, 100, 31, false),
            (77, 252, 30, false),
            (0, 116, 30, false),
            (0, 254, 31, false),
        ] {
            assert_eq!(passes(&settings, &route(kind, port, table, protocol)), expected, "{port} {table} {protocol}");
        }
    }
    let large = Settings { pod_table: 1160, ..settings };
    assert!(passes(&large, &route(libc::RTM_NEWROUTE, 77, 252, 30)));
    assert!(!passes(&large, &route(libc::RTM_NEWROUTE, 77, 116, 30)));
}

#[test]
fn of_neighbours_only_the_loss_of_a_permanent_one_passes() {
    let settings = Settings::default();
    assert!(passes(&settings, &neighbour(libc::RTM_DELNEIGH, 0x80)));
    assert!(!passes(&settings, &neighbour(libc::RTM_DELNEIGH, 0x04)));
    assert!(!passes(&settings, &neighbour(libc::RTM_NEWNEIGH, 0x80)));
}

#[test]
fn links_and_rules_pass_whichever_program_changed_them() {
    for kind in [libc::RTM_NEWLINK, libc::RTM_DELLINK, libc::RTM_NEWRULE, libc::RTM_DELRULE] {
        for port in [0, 77] {
            assert!(passes(&Settings::default(), &notification(kind, port, &[0; 16])));
        }
    }
}

#[test]
fn every_jump_goes_forward_to_a_step() {
    let steps = program(&Settings::default());
    for (at, step) in steps.iter().enumerate() {
        if let Step::JumpIfEqual(_, yes, no) | Step::JumpIfSet(_, yes, no) = *step {
            assert!(at < yes && at < no && yes < steps.len() && no < steps.len(), "{at}: {step:?}");
        }
    }
    assert_eq!(assemble(&steps).len(), steps.len());
}

//! The spoof filter: one nftables rule that drops what a pod sends from an address that is not its own.
//!
//! `iifgroup G fib saddr . iif oif 0 drop`: the source must be routed back to the link it came from. The lookup follows
//! policy rules, so the pods' table decides, for every pod and both families. Written as one batch, no `nft` needed.

use crate::message::{ACK, CREATE, Message, ROOT_DUMP, attributes, text_of, u32_at};
use crate::settings::Settings;
use crate::socket::{Ask, KernelError, Netlink};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const INET: u8 = 1;
const CHAIN: &str = "spoof";
const APPEND: u16 = 0x800;
/// Before connection tracking.
const RAW: i32 = -300;
const PREROUTING: u32 = 0;
const ACCEPT: u32 = 1;
const REGISTER: u32 = 1;
const META_INPUT_GROUP: u32 = 21;
const FIB_OUT_LINK: u32 = 1;
const FIB_SOURCE_AND_INPUT: u32 = 1 | 8;

fn fixed() -> [u8; 4] {
    [INET, 0, 0, 0]
}

fn batch(kind: u16) -> Message {
    Message::new(kind, 0, &[0, 0, 0, 10])
}

fn expression(list: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    list.nest(1, |element| element.text(1, name).nest(2, data))
}

/// `register == value`
fn equals(list: Message, value: u32) -> Message {
    expression(list, "cmp", |data| data.be32(1, REGISTER).be32(2, 0).nest(3, |inner| inner.u32(1, value)))
}

fn rule(settings: &Settings) -> Message {
    Message::new(NEW_RULE, ACK | CREATE | APPEND, &fixed()).text(1, &settings.nft_table).text(2, CHAIN).nest(
        4,
        |list| {
            let list = expression(list, "meta", |data| data.be32(1, REGISTER).be32(2, META_INPUT_GROUP));
            let list = equals(list, settings.link_group);
            let list = expression(list, "fib", |data| {
                data.be32(1, REGISTER).be32(2, FIB_OUT_LINK).be32(3, FIB_SOURCE_AND_INPUT)
            });
            let list = equals(list, 0);
            expression(list, "immediate", |data| {
                data.be32(1, 0).nest(2, |inner| inner.nest(2, |verdict| verdict.be32(1, 0)))
            })
        },
    )
}

/// Writes the table anew: one transaction, so no packet sees it half made.
pub(crate) fn write(netlink: &mut Netlink, settings: &Settings) -> Result<(), KernelError> {
    let table = || Message::new(NEW_TABLE, ACK | CREATE, &fixed()).text(1, &settings.nft_table).be32(2, 0);
    let chain = Message::new(NEW_CHAIN, ACK | CREATE, &fixed())
        .text(1, &settings.nft_table)
        .text(3, CHAIN)
        .nest(4, |hook| hook.be32(1, PREROUTING).attr(2, &RAW.to_be_bytes()))
        .be32(5, ACCEPT)
        .text(7, "filter");
    let what = |step: &str| format!("write the nftables table inet {} ({step})", settings.nft_table);
    transact(
        netlink,
        vec![
            Ask::new(what("table"), table()),
            Ask::new(what("the old one"), delete_message(settings)),
            Ask::new(what("table"), table()),
            Ask::new(what("chain"), chain),
            Ask::new(what("rule"), rule(settings)),
        ],
    )
}

fn delete_message(settings: &Settings) -> Message {
    Message::new(DELETE_TABLE, ACK, &fixed()).text(1, &settings.nft_table)
}

/// Removes the table, if it is there.
pub(crate) fn remove(netlink: &mut Netlink, settings: &Settings) -> Result<bool, KernelError> {
    let what = format!("remove the nftables table inet {}", settings.nft_table);
    match transact(netlink, vec![Ask::new(what, delete_message(settings))]) {
        Err(KernelError::Refused { errno: nix::libc::ENOENT, .. }) => Ok(false),
        other => other.map(|()| true),
    }
}

fn transact(netlink: &mut Netlink, asks: Vec<Ask>) -> Result<(), KernelError> {
    netlink.transaction(batch(BATCH_BEGIN), asks, batch(BATCH_END))?.into_iter().try_for_each(|answer| answer.map(drop))
}

/// Whether table, chain and rule are there as [`write`] makes them, and nothing else is in the table's chain.
pub(crate) fn is_right(netlink: &mut Netlink, settings: &Settings) -> Result<bool, KernelError> {
    let get_chain = Message::new(GET_CHAIN, 0, &fixed()).text(1, &settings.nft_table).text(3, CHAIN);
    let chain = match netlink.one("look for the spoof filter's chain", get_chain) {
        Err(KernelError::Refused { errno: nix::libc::ENOENT, .. }) => return Ok(false),
        other => other?,
    };
    let hooked = chain.first().is_some_and(|reply| {
        let list = attributes(reply.payload.get(4..).unwrap_or_default());
        let hook = list.iter().find(|(kind, _)| *kind == 4).map(|(_, value)| attributes(value)).unwrap_or_default();
        hook.iter().any(|(kind, value)| *kind == 1 && *value == PREROUTING.to_be_bytes())
            && hook.iter().any(|(kind, value)| *kind == 2 && *value == RAW.to_be_bytes())
    });
    let get_rules = Message::new(GET_RULE, ROOT_DUMP, &fixed()).text(1, &settings.nft_table).text(2, CHAIN);
    let rules = netlink.dump("the spoof filter's rules", &get_rules)?;
    let shapes: Vec<Vec<Expression>> = rules
        .iter()
        .map(|reply| shape(reply.payload.get(4..).unwrap_or_default()))
        .filter(|shape| !shape.is_empty())
        .collect();
    Ok(hooked && shapes == [wanted(settings)])
}

/// An expression's name and the numbers that make it this one.
type Expression = (String, Vec<u32>);

fn wanted(settings: &Settings) -> Vec<Expression> {
    vec![
        ("meta".to_owned(), vec![META_INPUT_GROUP]),
        ("cmp".to_owned(), vec![0, settings.link_group]),
        ("fib".to_owned(), vec![FIB_OUT_LINK, FIB_SOURCE_AND_INPUT]),
        ("cmp".to_owned(), vec![0, 0]),
        ("immediate".to_owned(), vec![0]),
    ]
}

fn shape(rule: &[u8]) -> Vec<Expression> {
    let expressions = attributes(rule).into_iter().find(|(kind, _)| *kind == 4).map(|(_, list)| list);
    attributes(expressions.unwrap_or_default())
        .into_iter()
        .map(|(_, element)| {
            let parts = attributes(element);
            let of = |wanted: u16| parts.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
            let name = of(1).map(text_of).unwrap_or_default();
            let data = attributes(of(2).unwrap_or_default());
            let part = |wanted: u16| data.iter().find(|(kind, _)| *kind == wanted).map_or(&[][..], |(_, value)| *value);
            let inner = |value| attributes(value).first().map_or(&[][..], |(_, inner)| *inner);
            let numbers = match name.as_str() {
                "meta" => vec![be32(part(2))],
                "cmp" => vec![be32(part(2)), u32_at(inner(part(3)), 0)],
                "fib" => vec![be32(part(2)), be32(part(3))],
                "immediate" => vec![be32(inner(inner(part(2))))],
                _ => Vec::new(),
            };
            (name, numbers)
        })
        .collect()
}

fn be32(bytes: &[u8]) -> u32 {
    u32_at(bytes, 0).to_be()
}

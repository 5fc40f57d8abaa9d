//! The anti-spoofing filter: one nftables rule that drops packets whose source address does not belong to the sending
//! pod.
//!
//! `iifgroup G fib saddr . iif oif 0 drop` is a strict reverse-path check: the route to a packet's source must lead
//! over the link on which the packet arrived. The lookup follows policy rules, so it uses the pod table, in both
//! address families.

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, Immediate, InetHookNumber, ListAttribute,
    Meta, MetaKey, NfTablesMessage, Operator, Register, RuleAttribute, RuleMessage, TableAttribute, TableFlags,
    TableMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use nix::libc;
use rtnetlink::packet_core::{DefaultNla, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NlasIterator};

use super::error::{KernelError, text_of};
use super::socket::{Netlink, Request};
use crate::settings::Settings;

/// The name of the nftables chain. The name must not change: after a downgrade, an earlier version of the agent looks
/// for a chain with this name.
const CHAIN: &str = "spoof";
/// The length of the header of an nftables message, in bytes.
const NFGEN_HEADER_LEN: usize = 4;
const NF_ACCEPT: u32 = libc::NF_ACCEPT as u32;
const NF_DROP: u32 = libc::NF_DROP as u32;
/// The chain's priority: the chain runs before connection tracking, so a spoofed packet creates no conntrack entry.
const RAW_PRIORITY: u32 = libc::NF_IP_PRI_RAW.cast_unsigned();

// Constants for nftables messages, which libc lacks.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_META_KEY: u16 = 2;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_OIF: u32 = 1;
const NFTA_FIB_F_SADDR: u32 = 1;
const NFTA_FIB_F_IIF: u32 = 8;

fn request(what: String, flags: u16, message: NfTablesMessage) -> Request<NetfilterMessage> {
    Request::new(what, flags, inet(message))
}

fn inet(message: impl Into<NetfilterMessageInner>) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message)
}

/// The message that begins or ends an nftables transaction.
fn batch(message: ControlMessage) -> Request<NetfilterMessage> {
    let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem);
    Request::new("change nftables", 0, NetfilterMessage::new(header, message))
}

/// The nftables expression `register == value`.
fn equals(value: u32) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(Operator::Equal),
        Cmp::Data(DataAttribute::Value(value.to_ne_bytes().to_vec())),
    ])
}

/// The nftables expression `fib`, built from raw attributes because the netfilter crate has no type for it.
fn fib_source_and_input_to_link() -> Expressions {
    let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    Expressions::Other {
        expression_type: "fib".to_owned(),
        attributes: vec![
            number(NFTA_FIB_DREG, u32::from(Register::Reg1)),
            number(NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF),
            number(NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF),
        ],
    }
}

pub(super) fn rule(settings: &Settings) -> NfTablesMessage {
    let input_group = Meta::Key(MetaKey::Iifgroup);
    let drop = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(NF_DROP))]);
    let expressions = vec![
        Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), input_group]),
        equals(settings.link_group),
        fib_source_and_input_to_link(),
        equals(0),
        Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), Immediate::Data(drop)]),
    ];
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(settings.nft_table.clone()),
            RuleAttribute::Chain(CHAIN.to_owned()),
            RuleAttribute::Expressions(expressions.into_iter().map(ListAttribute::from).collect()),
        ],
    })
}

fn table(settings: &Settings) -> NfTablesMessage {
    NfTablesMessage::NewTable(TableMessage {
        attributes: vec![TableAttribute::Name(settings.nft_table.clone()), TableAttribute::Flags(TableFlags::empty())],
    })
}

pub(super) fn chain(settings: &Settings) -> NfTablesMessage {
    let hook = vec![Hook::Number(InetHookNumber::PreRouting.into()), Hook::Priority(RAW_PRIORITY)];
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(settings.nft_table.clone()),
            ChainAttribute::Name(CHAIN.to_owned()),
            ChainAttribute::Hook(hook),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::Type("filter".to_owned()),
        ],
    })
}

fn delete_table(settings: &Settings) -> NfTablesMessage {
    let name = TableAttribute::Name(settings.nft_table.clone());
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![name] })
}

/// Replaces the nftables table in one transaction. Each packet meets either the complete old filter or the complete new
/// one.
pub(crate) fn write(netlink: &mut Netlink, settings: &Settings) -> Result<(), KernelError> {
    let what = |step: &str| format!("write the nftables table inet {} ({step})", settings.nft_table);
    let create = NLM_F_ACK | NLM_F_CREATE;
    transact(
        netlink,
        vec![
            request(what("table"), create, table(settings)),
            request(what("removal of the old table"), NLM_F_ACK, delete_table(settings)),
            request(what("table"), create, table(settings)),
            request(what("chain"), create, chain(settings)),
            request(what("rule"), create | NLM_F_APPEND, rule(settings)),
        ],
    )
}

/// Removes the nftables table. Returns `false` if the table does not exist.
pub(crate) fn remove(netlink: &mut Netlink, settings: &Settings) -> Result<bool, KernelError> {
    let what = format!("remove the nftables table inet {}", settings.nft_table);
    match transact(netlink, vec![request(what, NLM_F_ACK, delete_table(settings))]) {
        Err(KernelError::Refused { errno: libc::ENOENT, .. }) => Ok(false),
        other => other.map(|()| true),
    }
}

fn transact(netlink: &mut Netlink, requests: Vec<Request<NetfilterMessage>>) -> Result<(), KernelError> {
    let (begin, end) = (batch(ControlMessage::BatchBegin), batch(ControlMessage::BatchEnd));
    netlink.send_transaction(begin, requests, end)?.into_iter().try_for_each(|answer| answer.map(drop))
}

/// Whether the nftables table and chain are as [`write`] creates them, with the anti-spoofing rule as the only rule.
pub(crate) fn is_in_place(netlink: &mut Netlink, settings: &Settings) -> Result<bool, KernelError> {
    let get_chain = NfTablesMessage::GetChain(ChainMessage {
        attributes: vec![ChainAttribute::Table(settings.nft_table.clone()), ChainAttribute::Name(CHAIN.to_owned())],
    });
    let chain = match netlink.send_one(request("look up the anti-spoofing filter's chain".to_owned(), 0, get_chain)) {
        Err(KernelError::Refused { errno: libc::ENOENT, .. }) => return Ok(false),
        other => other?,
    };
    let get_rules = NfTablesMessage::GetRule(RuleMessage {
        attributes: vec![RuleAttribute::Table(settings.nft_table.clone()), RuleAttribute::Chain(CHAIN.to_owned())],
    });
    let rules = netlink.dump("the anti-spoofing filter's rules", &inet(get_rules))?;
    let rules = rules.iter().map(|reply| expressions_of(&reply.payload)).filter(|rule| !rule.is_empty());
    Ok(chain.first().is_some_and(|reply| is_hooked(&reply.payload)) && rules.eq([wanted(settings)]))
}

/// Whether an nftables message concerns the table with this name.
pub(crate) fn is_about_table(message: &[u8], name: &str) -> bool {
    attribute(message.get(NFGEN_HEADER_LEN..).unwrap_or_default(), NFTA_TABLE_NAME)
        .is_some_and(|found| text_of(found) == name)
}

// The functions below decode nftables answers themselves. The netfilter crate's decoder panics on an expression that is
// too short. `netlink/tests.rs` fuzzes these functions.

/// The name of an nftables expression, and the numbers in the expression that identify the anti-spoofing rule.
pub(super) type Expression = (String, Vec<Option<u32>>);

pub(super) fn wanted(settings: &Settings) -> Vec<Expression> {
    let equal = libc::NFT_CMP_EQ as u32;
    let expression = |name: &str, numbers: &[u32]| (name.to_owned(), numbers.iter().copied().map(Some).collect());
    vec![
        expression("meta", &[libc::NFT_META_IIFGROUP as u32]),
        expression("cmp", &[equal, settings.link_group]),
        expression("fib", &[NFT_FIB_RESULT_OIF, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF]),
        expression("cmp", &[equal, 0]),
        expression("immediate", &[NF_DROP]),
    ]
}

pub(super) fn is_hooked(chain: &[u8]) -> bool {
    let hook = attribute(chain.get(NFGEN_HEADER_LEN..).unwrap_or_default(), NFTA_CHAIN_HOOK).unwrap_or_default();
    let number = |kind| attribute(hook, kind).and_then(big_endian);
    number(NFTA_HOOK_HOOKNUM) == Some(u32::from(InetHookNumber::PreRouting))
        && number(NFTA_HOOK_PRIORITY) == Some(RAW_PRIORITY)
}

pub(super) fn expressions_of(rule: &[u8]) -> Vec<Expression> {
    let list = attribute(rule.get(NFGEN_HEADER_LEN..).unwrap_or_default(), NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    values(list).map(expression_of).collect()
}

fn expression_of(element: &[u8]) -> Expression {
    let name = attribute(element, NFTA_EXPR_NAME).map(text_of).unwrap_or_default();
    let data = attribute(element, NFTA_EXPR_DATA).unwrap_or_default();
    let number = |kind| attribute(data, kind).and_then(big_endian);
    let inside = |kind| attribute(data, kind).and_then(|nested| values(nested).next());
    let numbers = match name.as_str() {
        "meta" => vec![number(NFTA_META_KEY)],
        "cmp" => vec![number(NFTA_CMP_OP), inside(NFTA_CMP_DATA).and_then(native_endian)],
        "fib" => vec![number(NFTA_FIB_RESULT), number(NFTA_FIB_FLAGS)],
        "immediate" => {
            vec![inside(NFTA_IMMEDIATE_DATA).and_then(|verdict| values(verdict).next()).and_then(big_endian)]
        }
        _ => Vec::new(),
    };
    (name, numbers)
}

/// Returns the values of netlink attributes, up to the first malformed attribute.
fn values(attributes: &[u8]) -> impl Iterator<Item = &[u8]> {
    walk(attributes).map(|(_, value)| value)
}

fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    walk(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn walk(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        (kind, attribute.into_inner().get(NLA_HEADER_SIZE..length).unwrap_or_default())
    })
}

fn big_endian(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|four| u32::from_be_bytes(*four))
}

fn native_endian(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|four| u32::from_ne_bytes(*four))
}

//! Whether the source of a new connection may have one more: gathers what the [decision](judge_source) needs, and
//! charges the source.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use crate::limits::{
    CONNECTIONS_IN_FLIGHT_MAX, EXEMPT_CONNECTIONS_TOLD, SOURCE_BURST_SECONDS, SOURCE_RETURNS_BURST,
    SOURCE_RETURNS_PER_SECOND,
};
use crate::process::admission::{Refusal, SourceLoad, early_refusal_chance, judge_source};
use crate::process::process_table::Context;
use crate::state::budget::Rate;
use crate::state::connections::{Kind, Peer};
use crate::state::sources::{SourceAccount, SourceKey, is_exempt};

/// What the listener remembers to judge sources.
#[derive(Default)]
pub(crate) struct SourceGate {
    /// The last connections sent, each with its keeper: the keeper may not have entered their sources yet. A listener
    /// that dies forgets them, and its successor admits so many more at most.
    sent: VecDeque<(u32, SourceKey)>,
    has_told_exempt: bool,
}

impl SourceGate {
    /// Charges a new connection to its source. The source of a trusted proxy's connection is not known yet: it is
    /// judged when its header has come.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub(crate) fn judge(&mut self, context: &Context, peer: Peer) -> Result<(), Refusal> {
        let (Some(key), Peer::Network(address)) = (context.memory.header.source_of(peer), peer) else {
            return Ok(());
        };
        if context.config.is_trusted_proxy(address.ip()) {
            return Ok(());
        }
        if is_exempt(address.ip()) {
            self.tell_exempt(context, key, peer);
        }
        judge(context, address.ip(), self.in_flight(context, key))
    }

    /// A connection from this peer was sent to a keeper.
    pub(crate) fn note_sent(&mut self, context: &Context, keeper: u32, peer: Peer) {
        if let Some(key) = context.memory.header.source_of(peer) {
            let in_flight_max = CONNECTIONS_IN_FLIGHT_MAX as usize * context.ipc.keepers.len();
            if self.sent.len() == in_flight_max {
                self.sent.pop_front();
            }
            self.sent.push_back((keeper, key));
        }
    }

    /// Connections of the source that are on their way to a keeper.
    fn in_flight(&self, context: &Context, key: SourceKey) -> u32 {
        let keepers = (0..).zip(&context.memory.header.keepers[..context.ipc.keepers.len()]);
        keepers
            .map(|(index, keeper)| {
                let latest = self.sent.iter().rev().filter(|(to, _)| *to == index);
                let of_source = latest.take(keeper.in_flight(Kind::Game) as usize);
                u32::try_from(of_source.filter(|(_, other)| *other == key).count()).unwrap_or(u32::MAX)
            })
            .sum()
    }

    /// Tells the operator once that many clients come from an address without limits: perhaps through a proxy.
    fn tell_exempt(&mut self, context: &Context, key: SourceKey, peer: Peer) {
        if !self.has_told_exempt
            && context.memory.open_connections(Kind::Game) >= u64::from(EXEMPT_CONNECTIONS_TOLD)
            && context.memory.source_presence(key).connections >= EXEMPT_CONNECTIONS_TOLD
        {
            self.has_told_exempt = true;
            log::warn!(
                "{EXEMPT_CONNECTIONS_TOLD} connections are open from {peer}'s address, to which no limits of sources \
                 apply; if that is a proxy, let it send the addresses of its clients (trusted-proxy)"
            );
        }
    }
}

/// Whether a player that came from the source is away, and may be coming back now. Each check is charged, whatever its
/// result: it scans all connections, and other clients of the address can benefit from it.
fn may_return(context: &Context, key: SourceKey) -> bool {
    let memory = context.memory;
    let rate = Rate::per_second(SOURCE_RETURNS_PER_SECOND, SOURCE_RETURNS_BURST);
    if memory.sources.take(key, SourceAccount::Returns, rate, 1).is_err() {
        return false;
    }
    let presence = memory.source_presence(key);
    let present = presence.connections.saturating_sub(presence.greeting);
    memory.sources.players_of(key).count() > present as usize
}

/// Charges a connection to its source, and decides whether it is refused, also at random. `in_flight` connections of
/// the source are on their way to keepers.
///
/// # Errors
///
/// Why it is refused.
pub(crate) fn judge(context: &Context, address: IpAddr, in_flight: u32) -> Result<(), Refusal> {
    let (memory, config) = (context.memory, context.config);
    let key = SourceKey::new(address, memory.header.source_prefixes());
    let mut load = SourceLoad {
        ban_left_ms: memory.sources.ban_left_ms(key),
        ..SourceLoad::default()
    };
    if !is_exempt(address) {
        load.refused_for_us = memory.sources.refused_for_us(key);
        load.connections_max = config.source_connections;
        if judge_source(load).is_ok() {
            let per_second = config.source_connects_per_second.into();
            let rate = Rate::per_second(per_second, per_second * SOURCE_BURST_SECONDS);
            load.is_too_fast = memory
                .sources
                .take(key, SourceAccount::Connects, rate, 1)
                .is_err();
        }
        // All connections are looked through only for a source that connects no faster than it may.
        if judge_source(load).is_ok() {
            load.connections = memory.source_presence(key).connections + in_flight;
        }
    }
    // Looked up only where it can change the decision.
    if judge_source(load).is_err() && may_return(context, key) {
        load.may_return = true;
        load.connections = memory.source_presence(key).connections + in_flight;
    }
    judge_source(load).inspect_err(|_| {
        memory
            .header
            .sources_refused_total
            .fetch_add(1, Ordering::Relaxed);
    })?;
    judge_early(context, || load.may_return || may_return(context, key))
}

/// Refuses a connection at random if too many others have not greeted, unless it may be one of a player that is coming
/// back.
fn judge_early(context: &Context, returns: impl FnOnce() -> bool) -> Result<(), Refusal> {
    let (memory, config) = (context.memory, context.config);
    // A server that is full refuses anyway, and says so.
    if memory.open_connections(Kind::Game) >= config.connections_max.into() {
        return Ok(());
    }
    let chance = early_refusal_chance(config.early_refusal, memory.greeting_connections());
    // Without random numbers it is refused only if all are.
    let is_unlucky = || u64::from(getrandom::u32().unwrap_or(u32::MAX)) < chance;
    if chance > 0 && is_unlucky() && !returns() {
        memory.header.refused_early_total.fetch_add(1, Ordering::Relaxed);
        return Err(Refusal::Early);
    }
    Ok(())
}

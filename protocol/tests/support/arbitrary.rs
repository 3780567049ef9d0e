//! Generators of messages for property tests.

use forkade_protocol::*;
use proptest::{collection::vec, option, prelude::*};

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300)
}

fn token() -> impl Strategy<Value = Token> {
    any::<[u8; 16]>().prop_map(Token)
}

fn room() -> impl Strategy<Value = RoomId> {
    any::<u64>().prop_map(RoomId)
}

fn scope() -> impl Strategy<Value = ChatScope> {
    prop_oneof![
        Just(ChatScope::Room),
        Just(ChatScope::Lobby),
        text().prop_map(|to| ChatScope::Whisper { to })
    ]
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::Waiting), Just(Phase::Playing), Just(Phase::Finished)]
}

prop_compose! {
    fn filter()(game in option::of(text()), name_contains in option::of(text()), joinable: bool) -> RoomFilter {
        RoomFilter { game, name_contains, joinable }
    }
}

prop_compose! {
    fn seat()(name in text(), connected: bool, ready: bool) -> SeatInfo {
        SeatInfo { name, connected, ready }
    }
}

prop_compose! {
    fn settings()(
        passcode in option::of(text()),
        options in bytes(),
        (seats, unlisted, no_spectators, turn_seconds) in any::<(u8, bool, bool, u16)>(),
    ) -> RoomSettings {
        RoomSettings { passcode, seats, options, unlisted, no_spectators, turn_seconds }
    }
}

prop_compose! {
    fn rules()(
        options in bytes(),
        (seats, passcode, unlisted, no_spectators, turn_seconds) in any::<(u8, bool, bool, bool, u16)>(),
    ) -> RoomRules {
        RoomRules { seats, passcode, options, unlisted, no_spectators, turn_seconds }
    }
}

prop_compose! {
    fn reservation()(seat: u8, name in text(), milliseconds: u32) -> Reservation {
        Reservation { seat, name, milliseconds }
    }
}

prop_compose! {
    fn turn()(seat: u8, milliseconds: u32) -> Turn {
        Turn { seat, milliseconds }
    }
}

prop_compose! {
    fn snapshot()(
        (room, game, name, phase) in (room(), text(), text(), phase()),
        seat: Option<u8>,
        seats in vec(option::of(seat()), 0..5),
        spectators: u32,
        event: u64,
        (view, owner, rules) in (bytes(), any::<Option<u8>>(), rules()),
        reservations in vec(reservation(), 0..3),
        turn in option::of(turn()),
    ) -> Snapshot {
        Snapshot { room, game, name, phase, seat, seats, spectators, event, view, owner, rules, reservations, turn }
    }
}

prop_compose! {
    fn summary()(
        (room, game, name, phase) in (room(), text(), text(), phase()),
        seats: u8,
        taken: u8,
        spectators: u32,
        passcode: bool,
    ) -> RoomSummary {
        RoomSummary { room, game, name, phase, seats, taken, spectators, passcode }
    }
}

prop_compose! {
    fn game()(name in text(), seats_min: u8, seats_max: u8, ticks_per_second: u16) -> GameInfo {
        GameInfo { name, seats_min, seats_max, ticks_per_second }
    }
}

prop_compose! {
    fn limits()(limit: [u32; 6]) -> Limits {
        Limits {
            frame_bytes_max: limit[0],
            name_bytes_max: limit[1],
            chat_bytes_max: limit[2],
            confirm_every_bytes: limit[3],
            heartbeat_timeout_ms: limit[4],
            seat_grace_ms: limit[5],
        }
    }
}

fn event() -> impl Strategy<Value = RoomEvent> {
    let outcome = prop_oneof![
        bytes().prop_map(|seats| Outcome::Won { seats }),
        Just(Outcome::Draw),
        Just(Outcome::Abandoned)
    ];
    prop_oneof![
        (any::<u8>(), text()).prop_map(|(seat, name)| RoomEvent::Joined { seat, name }),
        any::<u8>().prop_map(|seat| RoomEvent::Left { seat }),
        any::<(u8, bool)>().prop_map(|(seat, connected)| RoomEvent::Connection { seat, connected }),
        any::<(u8, bool)>().prop_map(|(seat, ready)| RoomEvent::Ready { seat, ready }),
        Just(RoomEvent::Started),
        bytes().prop_map(|data| RoomEvent::Game { data }),
        (text(), text()).prop_map(|(from, text)| RoomEvent::Chat { from, text }),
        outcome.prop_map(|outcome| RoomEvent::Finished { outcome }),
        any::<u8>().prop_map(|seat| RoomEvent::Owner { seat }),
        any::<u8>().prop_map(|seat| RoomEvent::Kicked { seat }),
        (any::<u8>(), text()).prop_map(|(seat, name)| RoomEvent::Reserved { seat, name }),
        any::<u8>().prop_map(|seat| RoomEvent::ReservationOver { seat }),
        rules().prop_map(|rules| RoomEvent::Configured { rules }),
        any::<(u8, u32)>().prop_map(|(seat, milliseconds)| RoomEvent::Turn { seat, milliseconds }),
        any::<u8>().prop_map(|seat| RoomEvent::TurnTimedOut { seat }),
        Just(RoomEvent::TurnStopped),
    ]
}

pub(crate) fn client_message() -> impl Strategy<Value = ClientMessage> {
    use ClientMessage as Message;
    prop_oneof![
        (text(), text()).prop_map(|(name, client)| Message::Hello { name, client }),
        (token(), any::<u64>()).prop_map(|(token, received)| Message::Resume { token, received }),
        (any::<u32>(), filter(), option::of(room())).prop_map(|(request, filter, after)| {
            Message::ListRooms {
                request,
                filter,
                after,
            }
        }),
        (any::<u32>(), text(), text(), settings()).prop_map(|(request, game, name, settings)| {
            Message::CreateRoom {
                request,
                game,
                name,
                settings,
            }
        }),
        (any::<u32>(), room(), option::of(text())).prop_map(|(request, room, passcode)| Message::JoinRoom {
            request,
            room,
            passcode
        }),
        (any::<u32>(), text(), bytes()).prop_map(|(request, game, options)| Message::QuickMatch {
            request,
            game,
            options
        }),
        (any::<u32>(), room(), option::of(text())).prop_map(|(request, room, passcode)| Message::Spectate {
            request,
            room,
            passcode
        }),
        any::<u32>().prop_map(|request| Message::Leave { request }),
        any::<(u32, bool)>().prop_map(|(request, ready)| Message::Ready { request, ready }),
        (any::<u32>(), bytes()).prop_map(|(request, action)| Message::Act { request, action }),
        (any::<u32>(), scope(), text()).prop_map(|(request, scope, text)| Message::Chat {
            request,
            scope,
            text
        }),
        any::<u32>().prop_map(|request| Message::Rematch { request }),
        any::<u64>().prop_map(|received| Message::Confirm { received }),
        any::<u64>().prop_map(|nonce| Message::Ping { nonce }),
        Just(Message::Goodbye),
        (any::<u32>(), text(), any::<bool>()).prop_map(|(request, code, watch)| Message::JoinByInvite {
            request,
            code,
            watch
        }),
        (any::<u32>(), settings()).prop_map(|(request, settings)| Message::Configure { request, settings }),
        any::<(u32, bool)>().prop_map(|(request, renew)| Message::Invite { request, renew }),
        (any::<u32>(), text()).prop_map(|(request, player)| Message::Reserve { request, player }),
        (any::<u32>(), any::<u8>(), text()).prop_map(|(request, seat, name)| Message::Kick {
            request,
            seat,
            name
        }),
        (any::<u32>(), any::<u8>(), text()).prop_map(|(request, seat, name)| Message::HandOver {
            request,
            seat,
            name
        }),
        any::<u32>().prop_map(|request| Message::Look { request }),
        (any::<u32>(), text(), any::<bool>()).prop_map(|(request, player, ignore)| Message::Ignore {
            request,
            player,
            ignore
        }),
        (text(), text(), any::<u64>(), any::<bool>()).prop_map(|(name, client, nonce, acknowledge)| {
            Message::Greet {
                name,
                client,
                nonce,
                acknowledge,
            }
        }),
    ]
}

/// Only some error and reject codes are generated. The test vectors cover all of them.
pub(crate) fn server_message() -> impl Strategy<Value = ServerMessage> {
    use ServerMessage as Message;
    let reject = prop_oneof![Just(RejectCode::UnknownGame), Just(RejectCode::StateTooLarge)];
    let error = prop_oneof![Just(ErrorCode::BadPreamble), Just(ErrorCode::InternalError)];
    prop_oneof![
        (
            any::<u16>(),
            token(),
            any::<u64>(),
            text(),
            limits(),
            vec(game(), 0..5)
        )
            .prop_map(|(version, token, player, name, limits, games)| {
                Message::Welcome {
                    version,
                    token,
                    player: PlayerId(player),
                    name,
                    limits,
                    games,
                }
            }),
        any::<(u64, u64)>().prop_map(|(received, resuming_at)| Message::Resumed {
            received,
            resuming_at
        }),
        (any::<u32>(), vec(summary(), 0..5), option::of(room()))
            .prop_map(|(request, rooms, next)| Message::Rooms { request, rooms, next }),
        (any::<u32>(), snapshot()).prop_map(|(request, snapshot)| Message::Joined { request, snapshot }),
        (any::<u64>(), event()).prop_map(|(number, event)| Message::Event { number, event }),
        option::of(snapshot()).prop_map(|snapshot| Message::Resync { snapshot }),
        (any::<u32>(), reject, text()).prop_map(|(request, code, text)| Message::Rejected {
            request,
            code,
            text
        }),
        any::<u32>().prop_map(|request| Message::Left { request }),
        (scope(), text(), text()).prop_map(|(scope, from, text)| Message::Chat { scope, from, text }),
        any::<(u64, u64)>().prop_map(|(nonce, received)| Message::Pong { nonce, received }),
        (error, text()).prop_map(|(code, text)| Message::Error { code, text }),
        text().prop_map(|text| Message::ShuttingDown { text }),
        snapshot().prop_map(|snapshot| Message::Started { snapshot }),
        (any::<u32>(), text()).prop_map(|(request, code)| Message::Invitation { request, code }),
        (room(), text(), text(), text(), text(), any::<u16>()).prop_map(
            |(room, game, name, from, code, seconds)| Message::Invited {
                room,
                game,
                name,
                from,
                code,
                seconds
            }
        ),
        (room(), text()).prop_map(|(room, text)| Message::Removed { room, text }),
        any::<u64>().prop_map(|lines| Message::ChatMissed { lines }),
        (any::<u32>(), snapshot()).prop_map(|(request, snapshot)| Message::Picture { request, snapshot }),
        (
            any::<(u16, u64, u64)>(),
            token(),
            text(),
            limits(),
            any::<[u32; 7]>(),
            vec(game(), 0..5)
        )
            .prop_map(
                |((version, player, received), token, name, limits, budgets, games)| {
                    Message::Greeted {
                        version,
                        token,
                        player: PlayerId(player),
                        name,
                        limits,
                        budgets: Budgets {
                            unconfirmed_bytes_max: budgets[0],
                            unconfirmed_timeout_ms: budgets[1],
                            room_log_bytes: budgets[2],
                            chat_burst: budgets[3],
                            chat_per_minute: budgets[4],
                            requests_burst: budgets[5],
                            requests_per_minute: budgets[6],
                        },
                        received,
                        games,
                    }
                }
            ),
        any::<u32>().prop_map(|request| Message::Accepted { request }),
        any::<(u32, u32)>().prop_map(|(request, retry_after_ms)| Message::RejectedTooFast {
            request,
            code: RejectCode::TooFast,
            text: String::new(),
            retry_after_ms,
        }),
        (any::<(u32, Option<u8>)>(), snapshot()).prop_map(|((request, to_move), snapshot)| {
            Message::PictureToMove {
                request,
                snapshot,
                to_move,
            }
        }),
    ]
}

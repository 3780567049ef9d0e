//! How sessions begin, move to other connections, and end.

use forkade::testing::frontends::dispatch::HandshakeOutcome;
use forkade::testing::lobby::departure;
use forkade::testing::maintenance::expiry;
use forkade::testing::session::{CloseReason, ControlRequest, Resume};
use forkade_protocol::{ClientMessage, ErrorCode, ServerMessage, Token};

use super::{Run, TextClient};
use crate::harness::Actor;

impl Run {
    pub(super) fn hello(&mut self) {
        let name = self.some_name();
        let name = if self.random.one_in(3) {
            name.to_uppercase()
        } else {
            name
        };
        self.note(format!("{name} says hello"));
        let who = name.to_lowercase();
        let mut actor = self.connect();
        actor.send_hello(&name);
        let refusal = if self.model.players.contains_key(&who) {
            Some(ErrorCode::NameTaken)
        } else if self.model.is_full() {
            Some(ErrorCode::ServerFull)
        } else {
            None
        };
        match (actor.process_handshake(), refusal) {
            (HandshakeOutcome::Greeted, None) => {}
            (HandshakeOutcome::Refused(CloseReason::Error(code, text)), Some(expected))
                if code == expected =>
            {
                return self.refuse(actor, &CloseReason::Error(code, text));
            }
            (answer, expected) => panic!("{name} is answered {answer:?}, not {expected:?}"),
        }
        let (token, record) = match &actor.receive_messages()[..] {
            [
                ServerMessage::Welcome {
                    token,
                    player,
                    name: held,
                    ..
                },
            ] if *held == name => (*token, player.0 & 0xFFFF_FFFF),
            other => panic!("{name} is welcomed by {other:?}"),
        };
        self.model.add(who.clone());
        self.model.talk.add(&name);
        let slot = Some(actor.slot);
        let person = TextClient {
            name,
            token,
            record,
            received: 0,
            view: None,
            awaits_resync: false,
            slot,
        };
        assert!(self.people.insert(who, person).is_none());
        self.actors.insert(actor.slot, actor);
    }

    /// The connection is told the reason, and ends.
    fn refuse(&mut self, mut actor: Actor, farewell: &CloseReason) {
        if self.random.one_in(3) {
            actor.replace_handler(self.world);
        }
        actor.session.close(false, farewell);
        if self.random.one_in(3) {
            actor.replace_handler(self.world);
        }
        let CloseReason::Error(expected, _) = farewell else {
            panic!("a refusal has a reason")
        };
        match &actor.receive_messages()[..] {
            [ServerMessage::Error { code, .. }] if code == expected => {}
            other => panic!("instead of {expected:?} the client hears {other:?}"),
        }
        actor.end();
    }

    pub(super) fn says_goodbye(&mut self, who: &str) {
        self.note(format!("{who} says goodbye"));
        let mut actor = self.take_actor(who);
        actor.ask_and_close(&ClientMessage::Goodbye);
        if self.random.one_in(3) {
            actor.replace_handler(self.world);
        }
        actor.flush();
        actor.end();
        self.forget(who);
    }

    /// Unprocessed output is lost, and so is unhandled input.
    pub(super) fn lose_connection(&mut self, who: &str) {
        if self.people[who].slot.is_none() {
            return;
        }
        self.note(format!("{who}'s connection is lost"));
        let mut actor = self.take_actor(who);
        if self.random.one_in(2) {
            actor.receive_messages();
            self.model.talk.mail_was_moved(who);
        }
        if self.random.one_in(4) {
            actor.send_message(&ClientMessage::Leave { request: 0 });
        }
        if self.random.one_in(4) {
            actor.session.close(
                false,
                &CloseReason::Error(ErrorCode::Silent, "nothing was heard".into()),
            );
        }
        actor.end();
        self.model.connected(who, false);
    }

    /// Handler and keeper die: the ticker frees what the connection held.
    pub(super) fn lose_processes(&mut self, who: &str) {
        self.note(format!("{who}'s handler and keeper die"));
        let actor = self.take_actor(who);
        actor.session.record().abandon();
        let _ = expiry::free_connection(self.lobby(), actor.slot);
        self.model.connected(who, false);
    }

    pub(super) fn replace_handler(&mut self, who: &str) {
        self.note(format!("{who}'s handler is replaced"));
        let slot = self.people[who].slot.expect("attached");
        self.actors
            .get_mut(&slot)
            .expect("an actor")
            .replace_handler(self.world);
    }

    pub(super) fn resume(&mut self, who: &str) {
        let (token, mut received) = (self.people[who].token, self.people[who].received);
        let forgot = self.random.one_in(8);
        if forgot {
            received = 0;
        }
        self.note(format!("{who} resumes from {received}"));
        let mut actor = self.connect();
        self.request_resume(&mut actor, token, received);
        if self.random.one_in(6) {
            actor = self.supersede(actor, token, received);
        }
        if self.people[who].slot.is_some() {
            assert_eq!(actor.session.try_resume(), Resume::NotYet);
            self.yields(who);
        }
        assert_eq!(actor.session.try_resume(), Resume::Done);
        if self.random.one_in(4) {
            actor.replace_handler(self.world);
        }
        departure::set_connected(&mut actor.session, true);
        self.model.connected(who, true);
        let person = self.people.get_mut(who).expect("a person");
        person.slot = Some(actor.slot);
        actor.received = received;
        actor.flush();
        match actor.next_message() {
            Some(ServerMessage::Resumed { resuming_at, .. }) => {
                if resuming_at != received || forgot {
                    person.view = None;
                }
                // What it had received and confirmed in part is sent again from there on.
                if forgot {
                    self.model.talk.restart_stream(who);
                }
                person.awaits_resync = resuming_at != received;
                if person.awaits_resync {
                    self.model.talk.loses_bytes(who);
                }
                assert!(resuming_at >= received, "sent again what was received");
            }
            other => panic!("{who} resumes and hears {other:?}"),
        }
        self.actors.insert(actor.slot, actor);
        self.listen(who);
    }

    fn request_resume(&mut self, actor: &mut Actor, token: Token, received: u64) {
        actor.send_resume(token, received);
        let answer = actor.process_handshake();
        assert!(matches!(answer, HandshakeOutcome::Resuming(_)), "{answer:?}");
    }

    /// A still newer connection presents the token, too.
    fn supersede(&mut self, mut older: Actor, token: Token, received: u64) -> Actor {
        let mut newer = self.connect();
        self.request_resume(&mut newer, token, received);
        assert_eq!(older.session.try_resume(), Resume::Superseded);
        let farewell = CloseReason::Error(ErrorCode::Replaced, "your session goes on elsewhere".into());
        if self.random.one_in(2) {
            older.replace_handler(self.world);
        }
        self.refuse(older, &farewell);
        newer
    }

    /// The player's present connection yields the session.
    fn yields(&mut self, who: &str) {
        let mut actor = self.take_actor(who);
        if self.random.one_in(4) {
            actor.replace_handler(self.world);
        }
        assert_eq!(actor.session.control_request(), ControlRequest::Yield);
        if self.random.one_in(2) {
            actor.flush();
        }
        actor.session.yield_to_claimant();
        if self.random.one_in(2) {
            actor.replace_handler(self.world);
        }
        actor.flush();
        actor.end();
    }

    pub(super) fn kick(&mut self, who: &str) {
        self.note(format!("{who} is kicked"));
        let name = self.people[who].name.clone();
        let keeper = departure::kick(self.lobby(), &name).expect("the player is here");
        if self.people[who].slot.is_some() {
            assert_eq!(keeper, Some(0));
            let mut actor = self.take_actor(who);
            assert_eq!(actor.session.control_request(), ControlRequest::Kick);
            actor
                .session
                .close(true, &CloseReason::Error(ErrorCode::Kicked, "out".into()));
            actor.flush();
            actor.end();
        } else {
            assert_eq!(keeper, None);
            // No grace has expired at the beginning, but a kicked player has none.
            expiry::expire_players(self.lobby(), 0);
        }
        self.forget(who);
    }

    pub(super) fn show_bad_token(&mut self) {
        let mut bytes = [0; 16];
        bytes[0] = u8::try_from(self.random.below(8)).expect("few");
        bytes[15] = u8::try_from(self.random.below(256)).expect("a byte");
        self.note(format!("a connection presents the token {bytes:?}"));
        let mut actor = self.connect();
        actor.send_resume(Token(bytes), 0);
        match actor.process_handshake() {
            HandshakeOutcome::Refused(farewell @ CloseReason::Error(ErrorCode::TokenUnknown, _)) => {
                self.refuse(actor, &farewell)
            }
            other => panic!("a bad token is answered by {other:?}"),
        }
    }
}

//! The comparison as a table for a terminal.

use std::fmt;

use super::{Comparison, Summary};

/// A column of the table: its name, its digits, and where its figure is.
struct Column {
    name: &'static str,
    digits: usize,
    of: fn(&Summary) -> Option<f64>,
}

const COLUMNS: [Column; 7] = [
    Column {
        name: "joins/s",
        digits: 0,
        of: |row| row.joins_per_second,
    },
    Column {
        name: "p50 ms",
        digits: 3,
        of: |row| row.paced_p50_ms,
    },
    Column {
        name: "p99 ms",
        digits: 2,
        of: |row| row.paced_p99_ms,
    },
    Column {
        name: "msgs in/s",
        digits: 0,
        of: |row| row.messages_in_per_second,
    },
    Column {
        name: "CPU µs/msg",
        digits: 1,
        of: |row| row.cpu_us_per_message,
    },
    Column {
        name: "KiB/client",
        digits: 1,
        of: |row| row.memory_kib_per_client,
    },
    Column {
        name: "all KiB",
        digits: 1,
        of: |row| row.memory_all_kib_per_client,
    },
];
/// A server, and its figures with their ratios to those of the first server.
pub(super) type Row<'a> = (&'a Summary, Vec<(String, String)>);

const FIGURE_WIDTH: usize = 10;
const RATIO_WIDTH: usize = 7;

impl Comparison {
    /// Each failure once, however often it occurred.
    pub(super) fn failures(&self) -> Vec<&str> {
        let mut failures: Vec<&str> = Vec::new();
        for failure in self.measurements.iter().filter_map(|run| run.failure.as_deref()) {
            if !failures.contains(&failure) {
                failures.push(failure);
            }
        }
        failures
    }

    /// The servers at the last number of clients, Forkade first.
    pub(super) fn last(&self) -> Vec<&Summary> {
        let clients = self.summaries.last().map_or(0, |summary| summary.clients);
        self.summaries
            .iter()
            .filter(|summary| summary.clients == clients)
            .collect()
    }

    /// The columns' names, and each server's row.
    pub(super) fn rows(&self) -> (Vec<&'static str>, Vec<Row<'_>>) {
        let summaries = self.last();
        let rows = summaries.iter().map(|row| {
            let cells = COLUMNS.iter().map(|column| {
                let first = summaries.first().and_then(|first| (column.of)(first));
                let own = (column.of)(row);
                (shown(own, column.digits), ratio(own, first))
            });
            (*row, cells.collect())
        });
        (COLUMNS.iter().map(|column| column.name).collect(), rows.collect())
    }

    /// For each Forkade server and each peer: Forkade's figures divided by the peer's.
    pub(super) fn ratios_to_peers(&self) -> Vec<(String, Vec<String>)> {
        let summaries = self.last();
        let (peers, forkades): (Vec<&Summary>, Vec<&Summary>) =
            summaries.into_iter().partition(|summary| summary.peer.is_some());
        let pairs = forkades
            .iter()
            .flat_map(|forkade| peers.iter().map(move |peer| (*forkade, *peer)));
        let ratios = pairs.map(|(forkade, peer)| {
            let of = |column: &Column| ratio((column.of)(forkade), (column.of)(peer));
            let label = format!("{} : {}", forkade.candidate, peer.candidate);
            (label, COLUMNS.iter().map(of).collect::<Vec<String>>())
        });
        ratios
            .filter(|(_, ratios)| ratios.iter().any(|ratio| !ratio.is_empty()))
            .collect()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, table: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, rows) = self.rows();
        let ratios_to_peers = self.ratios_to_peers();
        let labels = rows.iter().map(|(row, _)| row.candidate.as_str());
        let labels = labels.chain(ratios_to_peers.iter().map(|(label, _)| label.as_str()));
        let label_width = labels.map(|label| label.chars().count()).max().unwrap_or(0);
        writeln!(table, "{}", self.description)?;
        let clients = rows.first().map_or(0, |(row, _)| row.clients);
        write!(table, "{:<label_width$}", format!("{clients} clients"))?;
        for name in &names {
            write!(table, "  {name:>FIGURE_WIDTH$} {:<RATIO_WIDTH$}", "")?;
        }
        writeln!(table)?;
        for (row, cells) in &rows {
            write!(table, "{:<label_width$}", row.candidate)?;
            for (figure, ratio) in cells {
                write!(table, "  {figure:>FIGURE_WIDTH$} {ratio:<RATIO_WIDTH$}")?;
            }
            writeln!(table)?;
        }
        if !ratios_to_peers.is_empty() {
            writeln!(table, "\nForkade's figures divided by a peer's")?;
        }
        for (label, ratios) in &ratios_to_peers {
            write!(table, "{label:<label_width$}")?;
            for ratio in ratios {
                write!(table, "  {ratio:>FIGURE_WIDTH$} {:<RATIO_WIDTH$}", "")?;
            }
            writeln!(table)?;
        }
        writeln!(table)?;
        for (row, _) in &rows {
            if let Some(peer) = row.peer {
                writeln!(table, "{}: {}", row.candidate, peer.about())?;
            }
            for remark in &row.remarks {
                writeln!(table, "{}, {remark}", row.candidate)?;
            }
        }
        for skipped in &self.skipped {
            writeln!(table, "skipped: {skipped}")?;
        }
        for failure in self.failures() {
            writeln!(table, "FAILED: {failure}")?;
        }
        Ok(())
    }
}

fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
}

fn ratio(figure: Option<f64>, of: Option<f64>) -> String {
    match (figure, of) {
        (Some(figure), Some(of)) if of > 0.0 => format!("×{:.2}", figure / of),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::server::peer::Peer;

    fn comparison() -> Comparison {
        let row = |candidate: &str, peer, joins, p99| Summary {
            candidate: candidate.to_owned(),
            peer,
            clients: 10,
            joins_per_second: Some(joins),
            paced_p99_ms: p99,
            ..Summary::default()
        };
        Comparison {
            machine: Machine::default(),
            description: "relay".to_owned(),
            candidates: Vec::new(),
            skipped: vec!["colyseus is not installed".to_owned()],
            summaries: vec![
                Summary {
                    clients: 2,
                    ..row("forkade", None, 1.0, None)
                },
                row("forkade", None, 1000.0, Some(4.0)),
                row("forkade --shared", None, 2000.0, Some(1.0)),
                row("floor", Some(Peer::Floor), 4000.0, Some(0.5)),
            ],
            measurements: Vec::new(),
        }
    }

    #[test]
    fn rows_are_of_the_last_number_of_clients_with_ratios_to_the_first_server() {
        let comparison = comparison();
        let (_, rows) = comparison.rows();
        let cell = |row: usize, column: usize| {
            let (figure, ratio) = &rows[row].1[column];
            (figure.as_str(), ratio.as_str())
        };
        assert_eq!(rows.len(), 3);
        assert_eq!(cell(0, 0), ("1000", "×1.00"));
        assert_eq!(cell(2, 0), ("4000", "×4.00"));
        assert_eq!(cell(1, 2), ("1.00", "×0.25"));
        assert_eq!(cell(0, 3), ("–", ""), "not measured");
    }

    #[test]
    fn every_forkade_server_is_compared_to_every_peer() {
        let ratios_to_peers = comparison().ratios_to_peers();
        let ratios: Vec<(&str, &str, &str)> = ratios_to_peers
            .iter()
            .map(|(label, ratios)| (label.as_str(), ratios[0].as_str(), ratios[2].as_str()))
            .collect();
        assert_eq!(
            ratios,
            [
                ("forkade : floor", "×0.25", "×8.00"),
                ("forkade --shared : floor", "×0.50", "×2.00")
            ]
        );
    }

    #[test]
    fn the_table_says_which_peers_are_missing_and_what_a_peer_does_not_do() {
        let text = comparison().to_string();
        for part in ["10 clients", "skipped: colyseus", "floor: one process, one loop"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

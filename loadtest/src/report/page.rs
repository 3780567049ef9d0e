//! The report as one HTML page: plots, figures, and where they come from. The page is self-contained, and
//! follows the reader's light or dark colour scheme.

pub(crate) mod plots;

use std::fmt::{self, Write};
use std::io;

use self::plots::{Colour, Plot, PlotError, Series};
use crate::latency::Percentiles;
use crate::machine::Machine;
use crate::report::Report;

const STYLE: &str = include_str!("page/style.css");
/// The kills of a role are also marked in the latency plot, unless there are more than this: they would hide
/// the curves.
const KILLS_DRAWN_THROUGH_MAX: usize = 40;

/// The whole page.
///
/// # Errors
/// When a plot cannot be drawn, which is a bug of this program.
pub(crate) fn render(report: &Report) -> io::Result<String> {
    let plots = plots(report).map_err(io::Error::other)?;
    let mut page = String::new();
    write(&mut page, report, &plots).map_err(io::Error::other)?;
    Ok(page)
}

/// A plot, its caption, and its legend.
pub(crate) struct Figure {
    pub title: &'static str,
    pub caption: &'static str,
    pub legend: Vec<(Colour, String)>,
    pub svg: String,
}

fn plots(report: &Report) -> Result<Vec<Figure>, PlotError> {
    let mut figures = Vec::new();
    let seconds = report.load_seconds.max(1.0);
    let points = &report.timeline;
    let latency = |of: fn(&crate::engine::timeline::LatencySummary) -> f64| -> Vec<(f64, f64)> {
        points
            .iter()
            .filter_map(|point| Some((point.seconds, of(point.latency_ms.as_ref()?))))
            .collect()
    };
    let kills: Vec<(f64, &str)> = report
        .chaos
        .iter()
        .flat_map(|chaos| &chaos.kills)
        .map(|kill| (kill.seconds, kill.role.as_str()))
        .collect();
    if !points.is_empty() && report.latency_ms.is_some() {
        let series = [
            (Colour::Red, "max", latency(|summary| summary.max)),
            (Colour::Amber, "p99", latency(|summary| summary.p99)),
            (Colour::Blue, "p50", latency(|summary| summary.p50)),
        ];
        let rare = kills.iter().filter(|(_, role)| {
            kills.iter().filter(|(_, other)| other == role).count() <= KILLS_DRAWN_THROUGH_MAX
        });
        let through: Vec<f64> = rare.map(|(at, _)| *at).collect();
        let mut svg = Plot::over_time(seconds, plots::MILLISECONDS)
            .logarithmic()
            .draw(&series, &through)?;
        if !kills.is_empty() {
            svg += &plots::kill_strip(seconds, &kills)?;
        }
        figures.push(Figure {
            title: "Latency over time",
            caption: if kills.is_empty() {
                "Of the messages received in each second, from when they should have been sent."
            } else {
                "Of the messages received in each second, from when they should have been sent. Below: each process that was killed."
            },
            legend: series.map(|(colour, name, _)| (colour, name.to_owned())).into(),
            svg,
        });
    }
    let curves: Vec<Series<'_>> = Colour::ALL
        .into_iter()
        .cycle()
        .zip(&report.workloads)
        .filter(|(_, workload)| !workload.latency_curve.is_empty())
        .map(|(colour, workload)| {
            (
                colour,
                workload.description.as_str(),
                workload.latency_curve.clone(),
            )
        })
        .collect();
    if !curves.is_empty() {
        figures.push(Figure {
            title: "Latency by percentile",
            caption: "Which share of all messages was received within how many milliseconds. Each step to the right is a tenth of the rest.",
            legend: curves.iter().map(|(colour, name, _)| (*colour, (*name).to_owned())).collect(),
            svg: plots::percentiles(&curves)?,
        });
    }
    let per_second = |of: fn(&crate::engine::timeline::Point) -> f64| -> Vec<(f64, f64)> {
        points.iter().map(|point| (point.seconds, of(point))).collect()
    };
    let series = [
        (
            Colour::Blue,
            "received",
            per_second(|point| point.received_per_second),
        ),
        (Colour::Green, "sent", per_second(|point| point.sent_per_second)),
    ];
    if !points.is_empty() {
        figures.push(figure(
            "Messages per second",
            "Sent by clients, and received by them.",
            seconds,
            "",
            series,
        )?);
    }
    let server = &report.server_timeline;
    let cpu: Vec<(f64, f64)> = server
        .iter()
        .filter_map(|point| Some((point.seconds, point.cpu_percent?)))
        .collect();
    if !points.is_empty() {
        let series = [
            (Colour::Blue, "server, all its processes", cpu),
            (
                Colour::Amber,
                "load generator, its one thread",
                per_second(|point| point.own_cpu_percent),
            ),
        ];
        figures.push(figure("CPU use", "100 % is one core.", seconds, "%", series)?);
    }
    let memory = server.iter().filter_map(|point| {
        #[expect(clippy::cast_precision_loss, reason = "for a plot")]
        let mib = point.memory_kib? as f64 / 1024.0;
        Some((point.seconds, mib))
    });
    let memory: Vec<(f64, f64)> = memory.collect();
    if memory.len() > 1 {
        let caption =
            "Of the server's processes, shared pages counted once, with page tables and kernel stacks.";
        let series = [(Colour::Violet, "memory", memory)];
        figures.push(figure("Server memory", caption, seconds, "MiB", series)?);
    }
    Ok(figures)
}

fn figure<const N: usize>(
    title: &'static str,
    caption: &'static str,
    seconds: f64,
    unit: &'static str,
    series: [Series<'static>; N],
) -> Result<Figure, PlotError> {
    let svg = Plot::over_time(seconds, unit).draw(&series, &[])?;
    Ok(Figure {
        title,
        caption,
        legend: series.map(|(colour, name, _)| (colour, name.to_owned())).into(),
        svg,
    })
}

fn write(page: &mut String, report: &Report, figures: &[Figure]) -> fmt::Result {
    let title = match &report.workloads[..] {
        [only] => only.description.clone(),
        several => format!("{} workloads, {} clients", several.len(), report.clients),
    };
    write_head(page, &title)?;
    write_verdict(page, report)?;
    page.push_str("</header>\n");
    write_tiles(page, report)?;
    for figure in figures {
        write_figure(page, figure)?;
    }
    page.push_str("<section>\n<h2>All figures</h2>\n<table>\n");
    for (name, text) in report.rows() {
        let class = if name == "FAILED" { " class=\"bad\"" } else { "" };
        writeln!(
            page,
            "<tr{class}><th>{}</th><td>{}</td></tr>",
            Escaped(name),
            Escaped(&text)
        )?;
    }
    page.push_str("</table>\n</section>\n");
    write_origin(page, report)?;
    write_end(page)
}

/// Writes the head of the page and the start of its header.
pub(crate) fn write_head(page: &mut String, title: &str) -> fmt::Result {
    let title = Escaped(title);
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>forkade-loadtest: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<p class=\"program\">forkade-loadtest</p>\n<h1>{title}</h1>\n"
    )
}

/// Writes the end of the page.
pub(crate) fn write_end(page: &mut String) -> fmt::Result {
    page.write_str("</body>\n</html>\n")
}

/// Writes a plot with its title and legend.
pub(crate) fn write_figure(page: &mut String, figure: &Figure) -> fmt::Result {
    let Figure {
        title,
        caption,
        legend,
        svg,
    } = figure;
    write!(
        page,
        "<figure>\n<h2>{title}</h2>\n<p>{caption}</p>\n<ul class=\"legend\">"
    )?;
    for (colour, name) in legend {
        write!(
            page,
            "<li><i style=\"background:var({})\"></i>{}</li>",
            colour.variable(),
            Escaped(name)
        )?;
    }
    write!(page, "</ul>\n{svg}\n</figure>\n")
}

/// Writes whether the thresholds held, and the notes.
fn write_verdict(page: &mut String, report: &Report) -> fmt::Result {
    if report.failures.is_empty() {
        page.push_str("<p class=\"verdict good\">Nothing failed: every threshold held.</p>\n");
    }
    for failure in &report.failures {
        writeln!(page, "<p class=\"verdict bad\">Failed: {}</p>", Escaped(failure))?;
    }
    for note in &report.notes {
        writeln!(page, "<p class=\"note\">{}</p>", Escaped(note))?;
    }
    Ok(())
}

fn write_tiles(page: &mut String, report: &Report) -> fmt::Result {
    let milliseconds = |of: fn(&Percentiles) -> f64| {
        report.latency_ms.as_ref().map_or_else(
            || "–".to_owned(),
            |latency| match of(latency) {
                long if long >= 1000.0 => format!("{:.2} s", long / 1000.0),
                ms => format!("{ms:.2} ms"),
            },
        )
    };
    let mut tiles = vec![
        (
            "received per second",
            format!("{:.0}", report.received_per_second),
        ),
        ("median latency", milliseconds(|latency| latency.p50)),
        ("99th percentile", milliseconds(|latency| latency.p99)),
        ("slowest", milliseconds(|latency| latency.max)),
        (
            "lost / duplicated / reordered",
            format!("{} / {} / {}", report.lost, report.duplicated, report.reordered),
        ),
        ("connections lost", report.disconnects.to_string()),
    ];
    if let Some(chaos) = &report.chaos {
        tiles.push(("processes killed", chaos.killed.values().sum::<u64>().to_string()));
    }
    if let Some(kib) = report.server.memory_kib_per_client {
        tiles.push(("memory per client", format!("{kib:.0} KiB")));
    }
    page.push_str("<ul class=\"tiles\">\n");
    for (name, value) in tiles {
        writeln!(page, "<li><b>{value}</b><span>{name}</span></li>")?;
    }
    page.push_str("</ul>\n");
    Ok(())
}

/// Writes the command line and the machine.
fn write_origin(page: &mut String, report: &Report) -> fmt::Result {
    write!(
        page,
        "<section>\n<h2>Command and machine</h2>\n<pre>{}</pre>\n<table>\n",
        Escaped(&command_line(&report.command))
    )?;
    write_machine(page, &report.machine)?;
    writeln!(page, "<tr><th>seed</th><td>{}</td></tr>", report.seed)?;
    page.push_str("</table>\n</section>\n");
    Ok(())
}

/// Writes the table rows about the machine and this program.
pub(crate) fn write_machine(page: &mut String, machine: &Machine) -> fmt::Result {
    let unknown = || "unknown".to_owned();
    let facts = [
        ("processor", machine.cpu.clone().unwrap_or_else(unknown)),
        ("cores", machine.cores.to_string()),
        (
            "memory",
            machine
                .memory_mib
                .map_or_else(unknown, |mib| format!("{mib} MiB")),
        ),
        ("kernel", machine.kernel.clone().unwrap_or_else(unknown)),
        (
            "load average before the run",
            machine
                .load_average
                .map_or_else(unknown, |load| format!("{load:.2}")),
        ),
        (
            "load generator",
            format!("forkade-loadtest {}", env!("CARGO_PKG_VERSION")),
        ),
    ];
    for (name, fact) in facts {
        writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", Escaped(&fact))?;
    }
    Ok(())
}

/// The command as a user would type it: the program's name without its path, and quotes where necessary.
pub(crate) fn command_line(command: &[String]) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "-_=./,:+@%".contains(character);
    let quoted = command
        .iter()
        .enumerate()
        .map(|(position, word)| match word.rsplit_once('/') {
            Some((_, name)) if position == 0 => name.to_owned(),
            _ if !word.is_empty() && word.chars().all(is_plain) => word.clone(),
            _ => format!("'{}'", word.replace('\'', "'\\''")),
        });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Text escaped for HTML.
pub(crate) struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '<' => formatter.write_str("&lt;"),
            '>' => formatter.write_str("&gt;"),
            '&' => formatter.write_str("&amp;"),
            '"' => formatter.write_str("&quot;"),
            other => formatter.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timeline::{LatencySummary, Point};
    use crate::report::{ChaosReport, KillPoint, ServerPoint, WorkloadReport};

    fn report() -> Report {
        let point = |second: f64| Point {
            seconds: second,
            sent_per_second: 100.0,
            received_per_second: 200.0,
            latency_ms: Some(LatencySummary {
                p50: 0.2,
                p99: 3.0,
                max: 20.0 + second,
            }),
            own_cpu_percent: 20.0,
            lag_ms_max: 1.0,
        };
        let server = |second: f64| ServerPoint {
            seconds: second,
            processes: 10,
            cpu_percent: Some(50.0),
            memory_kib: Some(20_000),
        };
        Report {
            load_seconds: 5.0,
            workloads: vec![WorkloadReport {
                description: "relay: <b>10</b> clients".to_owned(),
                latency_curve: vec![(0.0, 0.1), (0.5, 0.2), (0.99, 3.0), (0.999, 20.0)],
                ..WorkloadReport::default()
            }],
            latency_ms: Some(Percentiles::default()),
            chaos: Some(ChaosReport {
                kills: ["handler", "listener"]
                    .map(|role| KillPoint {
                        seconds: 2.0,
                        role: role.to_owned(),
                    })
                    .into(),
                ..ChaosReport::default()
            }),
            timeline: [1.0, 2.0, 3.0, 4.0, 5.0].map(point).into(),
            server_timeline: [1.0, 3.0, 5.0].map(server).into(),
            command: vec!["/a/b/forkade-loadtest".to_owned(), "--server-arg=a b".to_owned()],
            ..Report::default()
        }
    }

    #[test]
    fn the_page_has_all_plots_and_loads_nothing_from_elsewhere() {
        let page = render(&report()).expect("it is drawn");
        for title in [
            "Latency over time",
            "Latency by percentile",
            "Messages per second",
            "CPU use",
            "Server memory",
        ] {
            assert!(page.contains(title), "{title}");
        }
        assert_eq!(
            page.matches("<svg").count(),
            6,
            "five plots and the strip of kills"
        );
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http") && !elsewhere.contains("src=") && !elsewhere.contains("url("));
    }

    #[test]
    fn text_is_escaped_and_commands_are_quoted() {
        let page = render(&report()).expect("it is drawn");
        assert!(page.contains("relay: &lt;b&gt;10&lt;/b&gt; clients") && !page.contains("<b>10</b> clients"));
        assert!(page.contains("<pre>forkade-loadtest '--server-arg=a b'</pre>"));
    }

    #[test]
    fn a_run_that_measured_little_has_a_page_too() {
        assert!(
            render(&Report::default())
                .expect("it is drawn")
                .contains("All figures")
        );
        let mut short = report();
        short.timeline.truncate(1);
        short.server_timeline.clear();
        short.timeline[0].latency_ms = None;
        assert!(render(&short).is_ok());
    }

    #[test]
    fn failures_and_notes_come_first() {
        let failed = Report {
            failures: vec!["7 messages lost".to_owned()],
            notes: vec!["the load generator was the bottleneck".to_owned()],
            ..report()
        };
        let page = render(&failed).expect("it is drawn");
        let position = |text: &str| page.find(text).expect(text);
        assert!(position("Failed: 7 messages lost") < position("<svg"));
        assert!(position("was the bottleneck") < position("<svg"));
    }
}

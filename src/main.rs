//! The Forkade server with the games that come with it.

fn main() -> std::process::ExitCode {
    forkade::Server::standard().main()
}

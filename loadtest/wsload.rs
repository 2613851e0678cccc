//! WebSocket under load: an echo backend, and a client that plays ping-pong with it over many connections.

mod ws;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::net::SocketAddr;

/// WebSocket echo backend and load generator.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends every message back.
    Echo {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Opens tunnels, sends a message over each whenever the last one came back, compares every byte, and prints
    /// what happened as JSON.
    Load(ws::load::Settings),
}

fn main() -> Result<(), Box<dyn Error>> {
    match Args::parse().command {
        Command::Echo { listen } => ws::echo::run(listen)?,
        Command::Load(settings) => println!("{}", ws::load::run(settings)?),
    }
    Ok(())
}

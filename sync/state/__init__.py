"""What is known of a stream between runs, bookmark and files read: shown, set, rewound, adopted, forgotten."""

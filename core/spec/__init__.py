"""What a run is to do: its options, presets and YAML form."""

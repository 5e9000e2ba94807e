"""Cards of published repositories: templates in `hub_cards/`, numbers from tables only."""

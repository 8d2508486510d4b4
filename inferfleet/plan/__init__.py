"""Release and what was found to a Plan: ordered differences with a reason each; pure."""

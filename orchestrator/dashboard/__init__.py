"""The dashboard for the study's scientists: pages under ``/dashboard`` of the orchestrator's own address."""

"""Dashboards: mirrors of what lies in the local folder."""

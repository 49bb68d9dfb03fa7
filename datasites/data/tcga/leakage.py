"""Names of columns that define the outcome or follow from it: T, N, M, node counts, margins, survival, the stage.

The names are those of AJCC, FIGO, TCGA, GDC and cBioPortal. They are compared without capitals, signs and the group
before a dot, so that ``diagnoses.ajcc_pathologic_t``, ``AJCC Pathologic T`` and ``ajccPathologicT`` are one name. A
name is whole: a gene called ``STAG2`` is no stage.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from privacy.errors import InvalidInput

LEAKING_PREFIXES = ("leak_", "stage", "has_")
"""T, N, M and the resection report; the label itself; which files a case is in."""

STAGE_NAMES = (
    "ajcc_pathologic_stage", "ajcc_pathologic_tumor_stage", "pathologic_stage", "tumor_stage", "tumour_stage",
    "path_stage", "pathological_stage", "stage",
)  # fmt: skip
"""What a source may call the pathologic stage, the most exact name first."""

LEAKING = frozenset(
    {
        *("ajcc_pathologic_t", "ajcc_pathologic_n", "ajcc_pathologic_m", "path_t_stage", "path_n_stage"),
        *("path_m_stage", "ajcc_tumor_pathologic_pt", "ajcc_nodes_pathologic_pn", "ajcc_metastasis_pathologic_pm"),
        *("ajcc_clinical_t", "ajcc_clinical_n", "ajcc_clinical_m", "ajcc_clinical_stage", "figo_stage"),
        *("metastasis_at_diagnosis", "lymph_nodes_positive", "lymph_nodes_tested", "lymph_node_examined_number"),
        *("residual_disease", "margin_status", "lymphatic_invasion_present", "vascular_invasion_present"),
        *("perineural_invasion_present", "tumor_status", "vital_status", "days_to_death", "days_to_last_follow_up"),
        *("last_known_disease_status", "days_to_recurrence", "progression_or_recurrence", "os_status", "os_months"),
        *("dfs_status", "dfs_months", "dss_status", "dss_months", "pfs_status", "pfs_months"),
        *("new_tumor_event_after_initial_treatment", "largest_extrapelvic_peritoneal_focus", "synchronous_malignancy"),
    }
)
"""T, N, M, what else the resection report says of spread, and what becomes known only later: by the source's names."""

_ALSO = frozenset(
    {
        *("pathologic_t", "pathologic_n", "pathologic_m", "pathology_t_stage", "pathology_n_stage"),
        *("pathology_m_stage", "clinical_t", "clinical_n", "clinical_m", "clinical_stage", "uicc_stage", "tnm"),
        *("tnm_stage", "tnm_t", "tnm_n", "tnm_m", "t_stage", "n_stage", "m_stage", "pt_stage", "pn_stage", "pm_stage"),
        *("uicc_clinical_stage", "uicc_pathologic_stage", "uicc_pathologic_t", "uicc_pathologic_n"),
        *("uicc_pathologic_m", "clinical_t_stage", "clinical_n_stage", "clinical_m_stage", "ann_arbor_clinical_stage"),
        *("ann_arbor_pathologic_stage", "overall_stage", "cancer_stage", "disease_stage", "path_stage", "p_stage"),
        *("inss_stage", "masaoka_stage", "enneking_msts_stage", "ajcc_stage", "igcccg_stage", "summary_stage"),
        *("metastasis_at_diagnosis_site", "number_of_lymphnodes_positive_by_he", "number_of_lymphnodes_examined"),
        *("number_of_lymphnodes_positive_by_ihc", "lymph_nodes_examined", "lymph_node_count", "lymph_nodes_removed"),
        *("positive_lymph_nodes", "nodes_positive", "ln_positive", "ln_examined", "node_status", "nodal_status"),
        *("lymph_node_involvement", "lymph_node_status", "extranodal_extension", "extracapsular_extension"),
        *("lymph_node_involved_site", "lymph_node_dissection_site", "tumor_size", "tumour_size", "tumor_size_cm"),
        *("tumor_largest_dimension_diameter", "tumor_depth", "breslow_thickness", "peritoneal_fluid_cytological"),
        *("residual_tumor", "residual_tumour", "r_status", "margins", "resection_margin", "margin"),
        *("lymphovascular_invasion", "lymphovascular_invasion_present", "lymphatic_invasion", "vascular_invasion"),
        *("vascular_invasion_type", "perineural_invasion", "venous_invasion", "metastasis", "metastases"),
        *("distant_metastasis", "metastatic_site", "metastatic_status", "person_neoplasm_cancer_status"),
        *("tumor_free", "vital", "death", "dead", "deceased", "survival", "overall_survival", "survival_months"),
        *("survival_time", "survival_days", "time_to_death", "days_to_last_followup", "days_to_last_known_alive"),
        *("os_time", "os_event", "os_days", "dss", "dss_time", "dss_event", "pfi", "pfi_time", "pfi_event", "dfi"),
        *("dfi_time", "dfi_event", "pfs_time", "pfs_event", "dfs_time", "dfs_event", "rfs_status", "rfs_months"),
        *("progression_free_survival", "disease_free_survival", "progression_free_months", "recurrence"),
        *("progression", "relapse", "cause_of_death", "age_at_death", "year_of_death", "days_to_progression"),
        *("days_to_new_tumor_event_after_initial_treatment", "new_tumor_event", "best_response", "treatment_outcome"),
        *("primary_therapy_outcome_success", "followup_treatment_success", "days_to_diagnosis_of_metastasis"),
    }
)
_SHORT = frozenset({"pt", "pn", "pm", "ct", "cn", "cm", "ypt", "ypn", "ypm", "t", "n", "m", "os", "stage"})
"""Names of a few letters that mean T, N, M or survival."""

_PREFIXES = ("ajcc", "figo", "uicc")


def _joined(name: str) -> str:
    """Return a name without capitals, signs and the group before its last dot: ``pathologict`` of ``pathologic_T``."""
    last = unicodedata.normalize("NFKC", name).rsplit(".", 1)[-1] or name
    return "".join(letter for letter in last.casefold() if letter.isalnum())


_WHOLE = frozenset(map(_joined, LEAKING | _ALSO | set(STAGE_NAMES) - {"stage"}))
_EDITION = re.compile(r"staging(system)?edition|edition")


def leaks(name: str, *, genes: bool = False) -> bool:
    """Return whether a column of this name says the stage or what follows from it.

    Args:
        name: of the column.
        genes: whether columns are genes, one of which was called T.
    """
    plain, whole = name.strip().casefold(), _joined(name)
    if plain.startswith(LEAKING_PREFIXES) or {whole, _joined(name.replace(".", "_"))} & _WHOLE:
        return True
    if _EDITION.search(whole):
        return False  # the edition of the rules is no stage
    if not genes and whole.startswith(_PREFIXES):
        return True
    return whole in _SHORT and not (genes and whole == "t")


def refuse_leakage(columns: Iterable[str], *, where: str, genes: bool = False) -> None:
    """Refuse any column that would leak the stage into the inputs.

    Raises:
        InvalidInput: names the first offending column and what to do about it.
    """
    for column in columns:
        if leaks(str(column), genes=genes):
            raise InvalidInput(
                f"{where}: column {str(column)[:80]!r} defines or leaks the stage and cannot be an input; leave out "
                "the stage, T, N, M, what the resection report says of spread, survival, and columns that start with "
                "leak_, stage or has_"
            )

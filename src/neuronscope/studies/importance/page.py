"""placeholder"""
from neuronscope.result import Result
from neuronscope.views import Page
def importance_page(result: Result) -> Page:
    return Page("Importance", "", ())
